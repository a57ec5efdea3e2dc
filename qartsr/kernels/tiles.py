"""How a product is cut into pieces. Integer sums are exact, so the cut decides the time and nothing else.

No timing happens while a model runs: the cut is a function of the shape (:func:`rule`), or looked up in a table that
``benchmarks/gpu.py`` measured. So a run is reproducible, and can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A product of (rows, depth) codes with (outputs, depth) weights; depth = C kh kw."""

    rows: int
    outputs: int
    channels: int
    taps: int


@dataclass(frozen=True)
class Tiles:
    """One program's share and its resources."""

    rows: int
    outputs: int
    depth: int
    """channels per step; a step stays within one tap of the window"""
    splits: int = 1
    """into so many parts the depth is cut, each with its own program; a second pass adds them"""
    warps: int = 8
    stages: int = 3


Table = Mapping[Problem, Tiles]
"""Measured exceptions to :func:`rule`."""


def rule(problem: Problem, processors: int) -> Tiles:
    """The largest tiles without spills, smaller ones for small layers, the depth split where ``processors`` would idle.

    Compiled for compute capability 9.0, not measured: 128 x 128 x 128 uses wgmma and 181 registers with a low-rank
    branch and a residual; 128 x 256 spills 1.8 kB per thread with them, nothing without. A 16 x 16 layer of 1280
    channels is 20 such tiles for 132 processors.
    """
    depth = min(128, max(32, _power(problem.channels)))
    rows = min(128, max(16, _power(problem.rows)))
    outputs = min(128, max(16, _power(problem.outputs)))
    steps = problem.taps * -(-problem.channels // depth)
    splits = max(1, min(processors // _programs(problem, rows, outputs), steps // 4, 8))
    warps = 8 if rows * outputs >= 128 * 128 else 4
    return Tiles(rows, outputs, depth, splits, warps, stages=3 if depth == 128 else 4)


def candidates(problem: Problem, processors: int) -> Iterator[Tiles]:
    """The rule's choice first, then what is worth measuring for this shape: at most 40 in all."""
    chosen = rule(problem, processors)
    yield chosen
    large = chosen.splits == 1
    pairs = ((128, 128), (128, 256), (256, 128), (64, 256), (256, 64)) if large else ((64, 64), (64, 128), (128, 64))
    for rows, outputs in pairs:
        for depth in (64, 128):
            for splits in (1,) if large else (2, 4, 8):
                for stages in (3, 4):
                    warps = 8 if rows * outputs >= 128 * 128 else 4
                    found = Tiles(rows, outputs, depth, splits, warps, stages)
                    if found != chosen:
                        yield found


def _programs(problem: Problem, rows: int, outputs: int) -> int:
    return -(-problem.rows // rows) * -(-problem.outputs // outputs)


def _power(value: int) -> int:
    """The smallest power of two that is not below ``value``."""
    return 1 << max(0, value - 1).bit_length()
