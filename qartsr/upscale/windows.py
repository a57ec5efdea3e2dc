"""One axis of the tiling: where tiles begin, and how their overlaps are faded into each other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]


def starts(size: int, tile: int, overlap: int, multiple: int) -> tuple[int, ...]:
    """First pixels of equal tiles that cover ``size``, evenly spread, at least ``overlap`` shared by neighbours.

    ``tile`` and ``overlap`` are multiples of ``multiple``, and so is every start but the last, if ``size`` is none:
    the network's strides then fall on the same pixels in every tile. Requires ``overlap <= tile / 2``.
    """
    if size <= tile:
        return (0,)
    count = math.ceil((size - overlap) / (tile - overlap))
    steps = [-(-index * (size - tile) // ((count - 1) * multiple)) for index in range(count - 1)]
    return (*(step * multiple for step in steps), size - tile)


def fades(size: int, tile: int, begins: tuple[int, ...]) -> tuple[Weights, ...]:
    """One weight per tile and pixel, (min(size, tile),): smooth ramps over overlaps that sum to 1 at every pixel."""
    length = min(size, tile)
    total = np.zeros(size)
    windows = []
    for index, begin in enumerate(begins):
        before = begins[index - 1] + length - begin if index else 0
        after = begin + length - begins[index + 1] if index + 1 < len(begins) else 0
        windows.append(_ramp(length, before) * _ramp(length, after)[::-1])
        total[begin : begin + length] += windows[-1]
    return tuple((w / total[b : b + length]).astype(np.float32) for b, w in zip(begins, windows, strict=True))


def _ramp(length: int, overlap: int) -> NDArray[np.float64]:
    """sin^2 rise over ``overlap`` pixels, then 1. Never 0, so a pixel that only one tile covers keeps its value."""
    window = np.ones(length)
    position = (np.arange(overlap) + 0.5) / max(overlap, 1)
    window[:overlap] = np.sin(position * math.pi / 2) ** 2
    return window
