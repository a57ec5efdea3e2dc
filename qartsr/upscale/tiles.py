"""x4 of an image of any size, in tiles: the network's memory is that of one tile.

LR image -> bicubic x4 -> overlapping tiles, faded into each other -> colour fix of the whole image. Besides a tile and
a band of its height, an output pixel costs about 10 bytes of memory, 16 with the AdaIN fix.

What tiling changes: GroupNorm would see one tile only, so tiles share the statistics of up to PROBES tiles that are run
beforehand (:mod:`qartsr.upscale.statistics`). Convolutions see zeros beyond a tile's edge and attention sees one tile:
the fading hides that. A tiled image is close to the untiled one, not equal to it; an image no larger than one tile is
not tiled and exactly the network's.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qartsr.data.pairs import upsample
from qartsr.errors import QartsrError
from qartsr.models import OneStepSR
from qartsr.upscale.bands import Report, bands
from qartsr.upscale.colour import finish
from qartsr.upscale.modes import colour, like, normal

TILE, OVERLAP = 512, 64
"""Default side of a tile and least overlap of neighbours, in output pixels."""


def silent(done: int, total: int) -> None:
    """Report nothing."""


def upscale_image(
    model: OneStepSR,
    image: Image.Image,
    tile: int = TILE,
    overlap: int = OVERLAP,
    report: Report = silent,
    seed: int | None = None,
) -> Image.Image:
    """The image, exactly 4 times as wide and high, in its own mode (L, LA, RGB or RGBA).

    Parameters
    ----------
    tile, overlap: output pixels; rounded up to multiples of ``model.multiple``. ``overlap`` is at most half a tile.
    seed: of a sample of the encoder's posterior; None takes its mode.

    Raises QartsrError for an image without pixels or with more than 8 (grey: 16) bits per channel, and for a tile
    or overlap that cannot work.
    """
    tile, overlap = usable(tile, overlap, model.multiple)
    source = normal(image)
    lq = _pixels(upsample(colour(source)))
    with torch.no_grad():
        restored = finish(model.align, bands(model, lq, tile, overlap, report, seed), lq)
    del lq
    return like(Image.fromarray(restored.permute(1, 2, 0).numpy()), source)


def _pixels(image: Image.Image) -> Tensor:
    """(3, H, W) uint8 of an RGB image; in memory the channels stay together, so nothing is copied on the way back."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def usable(tile: int, overlap: int, multiple: int) -> tuple[int, int]:
    """Both rounded up to multiples. Raises QartsrError for an overlap of more than half a tile, or no tile."""
    tile, overlap = (-(-value // multiple) * multiple for value in (tile, overlap))
    if tile < 1 or not 0 <= overlap <= tile // 2:
        raise QartsrError(
            f"tile {tile} with overlap {overlap} cannot work", "tiles", "choose an overlap of at most half a tile"
        )
    return tile, overlap
