"""Where the tiles of an image are, and how much of each pixel of the joined image comes from which."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

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


class Place(NamedTuple):
    """One tile. Its weights along both axes, not their product, are kept: the product of all would be an image."""

    top: int
    left: int
    vertical: Weights
    """(height,)"""
    horizontal: Weights
    """(width,)"""

    @property
    def rows(self) -> slice:
        """In the image."""
        return slice(self.top, self.top + len(self.vertical))

    @property
    def columns(self) -> slice:
        """In the image."""
        return slice(self.left, self.left + len(self.horizontal))

    @property
    def weight(self) -> Weights:
        """(height, width) for blending; the weights of all tiles sum to 1 at every pixel."""
        product: Weights = self.vertical[:, None] * self.horizontal[None, :]
        return product


def grid(height: int, width: int, tile: int, overlap: int, multiple: int) -> list[list[Place]]:
    """Rows of tiles, from the top."""
    tops, lefts = starts(height, tile, overlap, multiple), starts(width, tile, overlap, multiple)
    across = list(zip(lefts, fades(width, tile, lefts), strict=True))
    return [
        [Place(top, left, vertical, horizontal) for left, horizontal in across]
        for top, vertical in zip(tops, fades(height, tile, tops), strict=True)
    ]


def spread(places: list[Place], count: int) -> list[Place]:
    """At most ``count`` of the places, evenly spread."""
    step = max(1.0, len(places) / count)
    return [places[int(index * step)] for index in range(min(count, len(places)))]


def cut(image: NDArray[Any], place: Place) -> NDArray[Any]:
    """The tile of (C, H, W); what lies beyond the image is its mirror, again and again where it is too small."""
    seen = image[:, place.rows, place.columns]
    missing = len(place.vertical) - seen.shape[1], len(place.horizontal) - seen.shape[2]
    return np.pad(seen, ((0, 0), (0, missing[0]), (0, missing[1])), mode="reflect")
