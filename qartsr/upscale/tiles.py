"""x4 of an image of any size, in tiles: the network's memory is that of one tile.

LR image -> bicubic x4 -> overlapping tiles, faded into each other -> colour fix of the whole image. Besides a tile and
a band of its height, an output pixel costs about 10 bytes of memory, 16 with the AdaIN fix.

What tiling changes: GroupNorm would see one tile only, so tiles share the statistics of up to PROBES tiles that are run
beforehand (:mod:`qartsr.upscale.statistics`). Convolutions see zeros beyond a tile's edge and attention sees one tile:
the fading hides that. A tiled image is close to the untiled one, not equal to it; an image no larger than one tile is
not tiled and exactly the network's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qartsr.errors import QartsrError
from qartsr.images import Picture, Some, as_image
from qartsr.upscale.bands import ROUNDS, Report, bands
from qartsr.upscale.colour import finish
from qartsr.upscale.enlarge import enlarged, like
from qartsr.upscale.network import Network, network_of

if TYPE_CHECKING:
    from qartsr.models import OneStepSR

TILE, OVERLAP = 512, 64
"""Default side of a tile and least overlap of neighbours, in output pixels."""
WHOLE = 1 << 30
"""Side of a tile that holds every image."""


def silent(done: int, total: int) -> None:
    """Report nothing."""


def upscale_image(
    model: OneStepSR | Network,
    image: Some,
    tile: int = TILE,
    overlap: int = OVERLAP,
    report: Report = silent,
    seed: int | None = None,
    rounds: int = ROUNDS,
) -> Picture:
    """The image, exactly 4 times as wide and high, in its own mode (L, LA, RGB or RGBA), with its metadata.

    16 bits per channel stay 16, in ``wide`` of the result. What is under alpha 0 has no influence on what is visible.

    Parameters
    ----------
    tile, overlap: output pixels; rounded up to multiples of ``facts.multiple``. ``overlap`` is at most half a tile, and
        ``tile`` 0 for no tiles.
    seed: of a sample of the encoder's posterior; None takes its mode.
    rounds: of observing what tiles share, 0 to 2: 0 is up to three times as quick, and neighbours differ visibly.

    Raises QartsrError for what is no image (:func:`qartsr.images.as_image`), for an image without pixels or with 32
    bits per channel, for a tile or overlap that cannot work, and for a result that is not a number.
    """
    network = network_of(model)
    tile, overlap = usable(tile, overlap, network.multiple)
    picture = as_image(image)
    source = enlarged(picture)
    restored = finish(network.align, bands(network, source.lq, tile, overlap, report, seed, rounds), source.lq)
    cut = restored[:, source.rows, source.columns]
    del source, restored
    return like(np.ascontiguousarray(cut.transpose(1, 2, 0)), picture)


def usable(tile: int, overlap: int, multiple: int) -> tuple[int, int]:
    """Both rounded up to multiples, 0 being one tile whatever the image.

    Raises QartsrError for an overlap of more than half a tile, or a negative tile.
    """
    tile, overlap = (-(-value // multiple) * multiple for value in (tile or WHOLE, overlap))
    if tile < 1 or not 0 <= overlap <= tile // 2:
        raise QartsrError(
            f"tile {tile} with overlap {overlap} cannot work", "tiles", "choose an overlap of at most half a tile"
        )
    return tile, overlap
