"""How long does the floating-point model take at full size on this CPU, part by part, and how much memory?

    python -m benchmarks.full_size --threads 2 --rounds 5

A random model of OSEDiff's size (949.6 M parameters) on one 512 x 512 output, in fp32 and in bf16, channels last,
eager. Both models live in one process and take turns in every round, so that a slow minute of the machine slows both:
trust the ratio more than the seconds. The first round warms up and is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import machine, peak, reset_peak, slug, versions
from qartsr.models import OneStepSR
from qartsr.synthetic import ARCHITECTURES, random_model

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
PARTS: dict[str, Callable[[OneStepSR], Callable[[Tensor], Tensor]]] = {
    "encoder": lambda model: model.encode,
    "UNet": lambda model: model.denoise,
    "decoder": lambda model: model.decode,
}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=tuple(ARCHITECTURES), default="osediff")
    parser.add_argument("--size", type=int, default=512, help="side of the output in pixels")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = measure(args.arch, args.size, args.rounds, args.threads)
    name = f"full_size_{slug()}_{result['date']}"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.out / f"{name}.md").write_text(as_markdown(result))
    print(as_markdown(result))


@torch.no_grad()
def measure(arch: str, size: int, rounds: int, threads: int) -> dict[str, Any]:
    described, models, load = ARCHITECTURES[arch](), {}, [os.getloadavg()[0]]
    for name, dtype in PRECISIONS.items():
        models[name] = random_model(described, seed=0, dtype=dtype).to(memory_format=torch.channels_last)
    lq = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    runs: dict[str, list[dict[str, tuple[float, float]]]] = {name: [] for name in PRECISIONS}
    highest = 0.0
    for index in range(rounds + 1):
        for name, model in models.items():
            found = one_run(model, lq.to(PRECISIONS[name]))
            highest = max(highest, found["peak"][1])
            runs[name] += [found] if index else []
            print(f"round {index}, {name}: {found['total'][0]:.2f} s", flush=True)
    load.append(os.getloadavg()[0])
    return {
        "question": "seconds and memory of the floating-point model at full size on a CPU, part by part",
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "settings": {"arch": arch, "size": size, "rounds": rounds, "threads": threads, "layout": "channels_last"},
        "load_average_before_and_after": [round(value, 1) for value in load],
        "precisions": {name: summary(models[name], runs[name]) for name in PRECISIONS},
        "fp32_over_bf16": {part: ratio(runs, part) for part in (*PARTS, "total")},
        "peak_rss_gb_both_models": highest / 1e9,
    }


def one_run(model: OneStepSR, lq: Tensor) -> dict[str, tuple[float, float]]:
    """Part -> seconds, and bytes needed beyond what was resident before; ``peak``: the most resident bytes at all."""
    x, found, highest = lq.to(memory_format=torch.channels_last), {}, 0.0
    for name, part in PARTS.items():
        resting, start = reset_peak(), time.perf_counter()
        x = part(model)(x)
        found[name] = time.perf_counter() - start, peak() - resting
        highest = max(highest, peak())
    if not bool(x.isfinite().all()) or float(x.float().std()) < 1e-3:
        raise SystemExit("the output is constant or not finite: these seconds mean nothing")
    found["total"] = sum(seconds for seconds, _ in found.values()), max(extra for _, extra in found.values())
    return {**found, "peak": (0.0, highest)}


def summary(model: OneStepSR, runs: list[dict[str, tuple[float, float]]]) -> dict[str, Any]:
    parts = {
        part: {
            "seconds": spread([run[part][0] for run in runs]),
            "working_memory_gb": max(run[part][1] for run in runs) / 1e9,
        }
        for part in (*PARTS, "total")
    }
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values()) / 1e9
    return {
        "weights_gb": weights,
        "weights_and_working_memory_gb": weights + parts["total"]["working_memory_gb"],
        **parts,
    }


def ratio(runs: dict[str, list[dict[str, tuple[float, float]]]], part: str) -> dict[str, Any]:
    """Of the two turns of each round."""
    pairs = zip(runs["fp32"], runs["bf16"], strict=True)
    return spread([slow[part][0] / fast[part][0] for slow, fast in pairs])


def spread(values: list[float]) -> dict[str, Any]:
    rounded = [round(value, 3) for value in values]
    return {"median": round(statistics.median(values), 3), "min": min(rounded), "max": max(rounded), "all": rounded}


def as_markdown(result: dict[str, Any]) -> str:
    computer, settings, parts = result["machine"], result["settings"], (*PARTS, "total")
    rows = "\n".join(_row(part, result) for part in parts)
    memory = "\n".join(
        f"| {name} | {values['weights_gb']:.2f} | "
        + " | ".join(f"{values[part]['working_memory_gb']:.2f}" for part in parts)
        + f" | {values['weights_and_working_memory_gb']:.2f} |"
        for name, values in result["precisions"].items()
    )
    load = " and ".join(str(value) for value in result["load_average_before_and_after"])
    return f"""# Full size on a CPU: {settings["arch"]}, {settings["size"]} x {settings["size"]}, floating point

{computer["cpu"]}, {computer["cores"]} cores, {computer["memory_gb"]} GB, {", ".join(computer["instructions"])};
{", ".join(f"{name} {value}" for name, value in result["versions"].items())}; {result["date"]}.
Random weights, batch 1, eager, channels last, {settings["threads"]} threads, {settings["rounds"]} counted rounds, fp32
and bf16 in turns in one process. Load average of the machine before and after: {load}.

Seconds, median (least to most); the ratio is taken within each round.

| part | fp32 | bf16 | fp32 / bf16 |
|---|---|---|---|
{rows}

Memory in GB (1e9 bytes): weights, what each part needs beyond all that was resident before it, and weights with the
largest of these. The process, which holds both models, had {result["peak_rss_gb_both_models"]:.2f} GB resident at most.

| | weights | {" | ".join(parts[:-1])} | largest | one model alone |
|---|---|---|---|---|---|---|
{memory}
"""


def _row(part: str, result: dict[str, Any]) -> str:
    columns = [result["precisions"][name][part]["seconds"] for name in PRECISIONS]
    columns.append(result["fp32_over_bf16"][part])
    return f"| {part} | " + " | ".join(f"{c['median']:.2f} ({c['min']:.2f} to {c['max']:.2f})" for c in columns) + " |"


if __name__ == "__main__":
    main()
