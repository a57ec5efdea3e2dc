"""x4 of an image of any size, in tiles: the network's memory is that of one tile.

LR image -> bicubic x4 -> padded to what the network needs -> overlapping tiles, faded into each other -> cropped ->
colour fix of the whole image. Besides the tile, an output pixel costs about 21 bytes of memory.

What tiling changes: GroupNorm would see one tile only, so tiles share the statistics of up to PROBES tiles that are run
once beforehand (:mod:`qartsr.upscale.statistics`). Convolutions see zeros beyond a tile's edge and attention sees one
tile: the fading hides that. A tiled image is close to the untiled one, not equal to it; an image no larger than one
tile is not tiled and exactly the network's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qartsr.data.pairs import image_tensor, to_unit, upsample
from qartsr.errors import QartsrError
from qartsr.models import OneStepSR
from qartsr.upscale.colour import finish
from qartsr.upscale.modes import colour, like, normal
from qartsr.upscale.statistics import imposed, observe
from qartsr.upscale.windows import fades, starts

TILE, OVERLAP = 512, 64
"""Default side of a tile and least overlap of neighbours, in output pixels."""
PROBES = 16
"""At most so many tiles, evenly spread, are run beforehand for their statistics."""

Report = Callable[[int, int], None]
"""Called after each run of the network with the number of runs done and their total."""


def silent(done: int, total: int) -> None:
    """Report nothing."""


def upscale_image(
    model: OneStepSR, image: Image.Image, tile: int = TILE, overlap: int = OVERLAP, report: Report = silent
) -> Image.Image:
    """The image, exactly 4 times as wide and high, in its own mode (L, LA, RGB or RGBA).

    Parameters
    ----------
    tile, overlap: output pixels; rounded up to multiples of ``model.multiple``. ``overlap`` is at most half a tile.

    Raises QartsrError for an image without pixels or with more than 8 (grey: 16) bits per channel, and for a tile
    or overlap that cannot work.
    """
    tile, overlap = usable(tile, overlap, model.multiple)
    source = normal(image)
    lq = image_tensor(upsample(colour(source)))
    with torch.no_grad():
        restored = finish(model.align, _network(model, lq, tile, overlap, report), lq)
    return like(Image.fromarray(np.ascontiguousarray(restored.permute(1, 2, 0).numpy())), source)


def usable(tile: int, overlap: int, multiple: int) -> tuple[int, int]:
    """Both rounded up to multiples. Raises QartsrError for an overlap of more than half a tile, or no tile."""
    tile, overlap = (-(-value // multiple) * multiple for value in (tile, overlap))
    if tile < 1 or not 0 <= overlap <= tile // 2:
        raise QartsrError(
            f"tile {tile} with overlap {overlap} cannot work", "tiles", "choose an overlap of at most half a tile"
        )
    return tile, overlap


def _network(model: OneStepSR, lq: Tensor, tile: int, overlap: int, report: Report) -> Tensor:
    """The network's output for uint8 ``lq`` (3, H, W), clamped: float (3, H, W) on the CPU."""
    padded = _padded(lq, model.multiple)
    places = _places(padded.shape[1], padded.shape[2], tile, overlap, model.multiple)
    probes = _spread(places, PROBES) if len(places) > 1 else []
    done, total = 0, len(probes) + len(places)

    def run(place: Place) -> Tensor:
        nonlocal done
        part = to_unit(padded[None, :, place.rows, place.columns]).to(model.context.device)
        output: Tensor = model(part)[0].float().clamp(-1, 1).cpu()
        done += 1
        report(done, total)
        return output

    joined = torch.zeros(padded.shape)
    statistics = observe(model, run, probes)
    with imposed(model, statistics):
        for place in places:
            joined[:, place.rows, place.columns] += run(place) * place.weight
    return joined[:, : lq.shape[1], : lq.shape[2]]


def _padded(lq: Tensor, multiple: int) -> Tensor:
    """Grown to the right and below to a multiple: mirrored, again and again where the image is smaller than the pad."""
    bottom, right = (-side % multiple for side in lq.shape[1:])
    return torch.from_numpy(np.pad(lq.numpy(), ((0, 0), (0, bottom), (0, right)), mode="reflect"))


class Place(NamedTuple):
    """One tile."""

    rows: slice
    columns: slice
    weight: Tensor
    """(rows, columns) for blending; the weights of all tiles sum to 1 at every pixel"""


def _places(height: int, width: int, tile: int, overlap: int, multiple: int) -> list[Place]:
    tops, lefts = starts(height, tile, overlap, multiple), starts(width, tile, overlap, multiple)
    return [
        Place(
            slice(top, top + len(vertical)),
            slice(left, left + len(horizontal)),
            vertical[:, None] * horizontal[None, :],
        )
        for top, vertical in zip(tops, fades(height, tile, tops), strict=True)
        for left, horizontal in zip(lefts, fades(width, tile, lefts), strict=True)
    ]


def _spread(places: list[Place], count: int) -> list[Place]:
    """At most ``count`` of the places, evenly spread."""
    step = max(1.0, len(places) / count)
    return [places[int(index * step)] for index in range(min(count, len(places)))]
