"""Is attention over many positions faster in bf16 or in fp32, in OpenVINO on this CPU?

    python -m benchmarks.cpu_attention --threads 2

The rule in qartsr/runtime/graphs.py rests on it. Random values, batch 1; both precisions take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino.opset13 as op

from benchmarks.machine import machine, slug, versions

RESULTS = Path(__file__).parent / "results"
SHAPES = (
    (4, 4096, 16),
    (4, 9216, 16),
    (4, 16384, 16),
    (5, 4096, 64),
    (5, 9216, 64),
    (5, 16384, 64),
    (1, 4096, 512),
    (1, 9216, 512),
)
"""Heads, positions, width of a head: the sample UNet, Stable Diffusion's, the middle of its VAE."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows = [measured(*shape, args.threads, args.rounds) for shape in SHAPES]
    result = {"date": date.today().isoformat(), "machine": machine(), "versions": versions("openvino"), "rows": rows}
    name = f"cpu_attention_{slug()}_{result['date']}"
    (args.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / f"{name}.md").write_text(as_markdown(result))
    print(as_markdown(result))


def measured(heads: int, positions: int, width: int, threads: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of both precisions, medians, after one turn that is not counted."""
    dice = np.random.default_rng(0)
    inputs = [dice.standard_normal((1, heads, positions, width)).astype(np.float32) for _ in range(3)]
    requests = {hint: _compiled(heads, positions, width, hint, threads) for hint in ("f32", "bf16")}
    times: dict[str, list[float]] = {hint: [] for hint in requests}
    for _ in range(1 + rounds):
        for hint, request in requests.items():
            start = time.perf_counter()
            request.infer(inputs)
            times[hint].append((time.perf_counter() - start) * 1e3)
    medians = {hint: round(statistics.median(each[1:]), 1) for hint, each in times.items()}
    return {"heads": heads, "positions": positions, "width": width, **medians}


def _compiled(heads: int, positions: int, width: int, hint: str, threads: int) -> Any:
    query, key, value = (op.parameter([1, heads, positions, width], np.float32) for _ in range(3))
    factor = op.constant(np.float32(width**-0.25))
    turned = op.multiply(op.transpose(key, op.constant([0, 1, 3, 2])), factor)
    scores = op.matmul(op.multiply(query, factor), turned, False, False)
    graph = openvino.Model(
        [op.result(op.matmul(op.softmax(scores, -1), value, False, False))], [query, key, value], "a"
    )
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    return openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()


def _row(heads: int, positions: int, width: int, f32: float, bf16: float) -> str:
    return f"| {heads} x {width} | {positions} | {f32} | {bf16} | {f32 / bf16:.2f} |"


def as_markdown(result: dict[str, Any]) -> str:
    rows = "\n".join(_row(**row) for row in result["rows"])
    return f"""# Attention on a CPU, {result["date"]}

{result["machine"]["cpu"]}, OpenVINO {result["versions"]["openvino"]}; milliseconds, medians.

| heads x width | positions | fp32 | bf16 | bf16 is faster by |
|---|--:|--:|--:|--:|
{rows}
"""


if __name__ == "__main__":
    main()
