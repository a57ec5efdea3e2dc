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
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

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


class Sample(NamedTuple):
    """One part, once."""

    seconds: float
    processor: float
    """seconds of all cores together: what is left of ``seconds`` when others take the machine away"""
    extra: float
    """bytes needed beyond what was resident before"""
    peak: float
    """the most resident bytes of the whole process"""


Run = dict[str, Sample]
"""By part, and the sum (memory: the largest) as ``total``."""


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
    load = [os.getloadavg()[0]]
    alone = {name: peak_alone(arch, size, threads, name) for name in PRECISIONS}
    models = {name: built(arch, name) for name in PRECISIONS}
    runs: dict[str, list[Run]] = {name: [] for name in PRECISIONS}
    for index in range(rounds + 1):
        for name, model in models.items():
            runs[name].append(one_run(model, image(size, name)))
            print(f"round {index}, {name}: {runs[name][-1]['total'].seconds:.2f} s", flush=True)
    load.append(os.getloadavg()[0])
    return {
        "question": "seconds and memory of the floating-point model at full size on a CPU, part by part",
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "settings": {"arch": arch, "size": size, "rounds": rounds, "threads": threads, "layout": "channels_last"},
        "load_average_before_and_after": [round(value, 1) for value in load],
        "precisions": {name: summary(models[name], runs[name][1:], alone[name]) for name in PRECISIONS},
        "fp32_over_bf16": {part: ratio(runs, part) for part in (*PARTS, "total")},
        "peak_rss_gb_both_models": max(run["total"].peak for both in runs.values() for run in both) / 1e9,
    }


def built(arch: str, name: str) -> OneStepSR:
    model = random_model(ARCHITECTURES[arch](), seed=0, dtype=PRECISIONS[name])
    return model.to(memory_format=torch.channels_last)


def image(size: int, name: str) -> Tensor:
    return (torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1).to(PRECISIONS[name])


def peak_alone(arch: str, size: int, threads: int, name: str) -> float:
    """The most resident bytes of a fresh process that holds one model and runs it twice."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_here, arch, size, threads, name).result()


@torch.no_grad()
def _peak_here(arch: str, size: int, threads: int, name: str) -> float:
    torch.set_num_threads(threads)
    model = built(arch, name)
    return max(one_run(model, image(size, name))["total"].peak for _ in range(2))


def one_run(model: OneStepSR, lq: Tensor) -> Run:
    x, found = lq.to(memory_format=torch.channels_last), {}
    for name, part in PARTS.items():
        resting, start, started = reset_peak(), time.perf_counter(), time.process_time()
        x = part(model)(x)
        seconds, processor = time.perf_counter() - start, time.process_time() - started
        found[name] = Sample(seconds, processor, peak() - resting, peak())
    if not bool(x.isfinite().all()) or float(x.float().std()) < 1e-3:
        raise SystemExit("the output is constant or not finite: these seconds mean nothing")
    columns = list(zip(*found.values(), strict=True))
    return {**found, "total": Sample(sum(columns[0]), sum(columns[1]), max(columns[2]), max(columns[3]))}


def summary(model: OneStepSR, runs: list[Run], alone: float) -> dict[str, Any]:
    parts = {
        part: {
            "seconds": spread([run[part].seconds for run in runs]),
            "processor_seconds": spread([run[part].processor for run in runs]),
            "working_memory_gb": max(run[part].extra for run in runs) / 1e9,
        }
        for part in (*PARTS, "total")
    }
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values()) / 1e9
    return {"weights_gb": weights, "peak_rss_gb_alone": alone / 1e9, **parts}


def ratio(runs: dict[str, list[Run]], part: str) -> dict[str, Any]:
    """Of the two turns of each counted round."""
    pairs = zip(runs["fp32"][1:], runs["bf16"][1:], strict=True)
    return spread([slow[part].seconds / fast[part].seconds for slow, fast in pairs])


def spread(values: list[float]) -> dict[str, Any]:
    rounded = [round(value, 3) for value in values]
    return {"median": round(statistics.median(values), 3), "min": min(rounded), "max": max(rounded), "all": rounded}


def as_markdown(result: dict[str, Any]) -> str:
    computer, settings, parts = result["machine"], result["settings"], (*PARTS, "total")
    rows = "\n".join(_row(part, result) for part in parts)
    memory = "\n".join(
        f"| {name} | {values['weights_gb']:.2f} | "
        + " | ".join(f"{values[part]['working_memory_gb']:.2f}" for part in PARTS)
        + f" | {values['peak_rss_gb_alone']:.2f} |"
        for name, values in result["precisions"].items()
    )
    load = " and ".join(str(value) for value in result["load_average_before_and_after"])
    return f"""# Full size on a CPU: {settings["arch"]}, {settings["size"]} x {settings["size"]}, floating point

{computer["cpu"]}, {computer["cores"]} cores, {computer["memory_gb"]} GB, {", ".join(computer["instructions"])};
{", ".join(f"{name} {value}" for name, value in result["versions"].items())}; {result["date"]}.
Random weights, batch 1, eager, channels last, {settings["threads"]} threads, {settings["rounds"]} counted rounds, fp32
and bf16 in turns in one process. Load average of the machine before and after: {load}.

Seconds on the clock, median (least to most); the ratio is taken within each round. "Cores": seconds of all cores
together, divided by the threads: about what the clock shows on a machine that does nothing else.

| part | fp32 | bf16 | fp32 / bf16 | fp32, cores | bf16, cores |
|---|---|---|---|---|---|
{rows}

Memory in GB (1e9 bytes): the weights; what each part needs beyond all that was resident before it; and the most
resident memory of a fresh process with this model alone, libraries included. The process of the timings, which holds
both models, had {result["peak_rss_gb_both_models"]:.2f} GB.

| | weights | {" | ".join(PARTS)} | peak of one model alone |
|---|---|---|---|---|---|
{memory}
"""


def _row(part: str, result: dict[str, Any]) -> str:
    precisions, threads = result["precisions"], result["settings"]["threads"]
    columns = [precisions[name][part]["seconds"] for name in PRECISIONS] + [result["fp32_over_bf16"][part]]
    clock = [f"{column['median']:.2f} ({column['min']:.2f} to {column['max']:.2f})" for column in columns]
    cores = [f"{precisions[name][part]['processor_seconds']['median'] / threads:.2f}" for name in PRECISIONS]
    return f"| {part} | " + " | ".join(clock + cores) + " |"


if __name__ == "__main__":
    main()
