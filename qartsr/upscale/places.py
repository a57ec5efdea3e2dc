"""Where the tiles of an image are, and how much of each pixel of the joined image comes from which."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qartsr.upscale.windows import Weights, fades, starts


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
