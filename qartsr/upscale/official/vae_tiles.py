"""Geometry of the VAE's tiles: what each tile sees, and which part of its output is kept."""

from __future__ import annotations

import math
from typing import NamedTuple

from qartsr.errors import QartsrError


class Span(NamedTuple):
    """One tile along one axis, in pixels of the component's input."""

    seen: slice
    kept: slice


class Tile(NamedTuple):
    """One tile of an image."""

    rows: Span
    columns: Span


def tiles(height: int, width: int, tile: int, pad: int) -> list[Tile]:
    """Tiles in rows, each seeing ``pad`` pixels beyond what it keeps. Raises QartsrError if ``tile`` is too small."""
    return [Tile(rows, columns) for rows in spans(height, tile, pad) for columns in spans(width, tile, pad)]


def spans(size: int, tile: int, pad: int) -> list[Span]:
    """Cores of equal size between the two pads; the first and last core keep the image's border too."""
    count = max(1, math.ceil((size - 2 * pad) / tile))
    side = _rounded(math.ceil((size - 2 * pad) / count), tile)
    found = []
    for index in range(count):
        begin, end = pad + index * side, min(pad + (index + 1) * side, size)
        kept = slice(begin if begin > pad else 0, end if end < size - pad else size)
        found.append(Span(slice(max(0, begin - pad), min(size, end + pad)), kept))
        if kept.start >= kept.stop:
            raise QartsrError(f"tiles of {tile} leave nothing of {size} pixels", "VAE tiles", "choose a larger tile")
    return found


def _rounded(side: int, most: int) -> int:
    """Up to the next multiple of the largest of 32, 16, 8, 4, 2 that keeps it at most ``most``."""
    for divisor in (32, 16, 8, 4, 2):
        if (candidate := math.ceil(side / divisor) * divisor) <= most or candidate == side:
            return candidate
    return side
