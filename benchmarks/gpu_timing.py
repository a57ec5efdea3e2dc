"""Times on a GPU: contenders take turns, each turn finds a cold cache, and the median is what counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

_CACHE = 256 * 2**20
"""Bytes written between turns: more than any level-2 cache holds."""

Run = Callable[[], object]
Clock = Callable[[Run], float]
"""Milliseconds of one run."""


def cuda_clock() -> Clock:
    """Times by CUDA events; writes the cache full before each run, which also hides the time of the launches."""
    filler = torch.empty(_CACHE, dtype=torch.int8, device="cuda")

    def clock(run: Run) -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        filler.zero_()
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    return clock


def wall_clock(run: Run) -> float:
    """Times by the clock on the wall: for trying a benchmark without a GPU."""
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def interleaved(contenders: Mapping[str, Run], rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Milliseconds of every counted round; three rounds before them warm up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(rounds + 3):
        for name, run in contenders.items():
            spent = clock(run)
            if index >= 3:
                times[name].append(spent)
    return times


def spread(values: list[float]) -> dict[str, Any]:
    """Median, least, most, quartiles and how many; single runs only where they are few."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(values), 4),
        "min": round(ordered[0], 4),
        "max": round(ordered[-1], 4),
        "quartiles": [round(ordered[len(ordered) * part // 4], 4) for part in (1, 3)],
        "rounds": len(values),
    }


def ratio(slow: list[float], fast: list[float]) -> dict[str, Any]:
    """Of the two turns of each round."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)])
