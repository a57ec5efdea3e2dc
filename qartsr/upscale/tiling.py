"""x4 of an image of any size, in tiles: the network's memory is that of one tile.

LR image -> bicubic x4 -> overlapping tiles, faded into each other -> colour fix of the whole image. Besides a tile and
a band of its height, an output pixel costs about 10 bytes of memory, 16 with the AdaIN fix.

What tiling changes: GroupNorm would see one tile only, so tiles share the statistics of up to PROBES tiles that are run
beforehand (:mod:`qartsr.upscale.shared_norms`). Convolutions see zeros beyond a tile's edge, attention sees one tile:
the fading hides that. A tiled image is close to the untiled one, not equal to it; an image no larger than one tile is
not tiled and exactly the network's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qartsr.errors import QartsrError
from qartsr.images import Picture, Some, as_image
from qartsr.upscale.colour import Floats, finish, to_unit
from qartsr.upscale.enlarge import enlarged, like
from qartsr.upscale.memory import LatentMemory
from qartsr.upscale.network import Network, network_of
from qartsr.upscale.places import Place, cut, grid, spread
from qartsr.upscale.shared_norms import observe
from qartsr.upscale.unfinished import LEAST, Resume, Row, Unfinished

PROBES = 16
"""At most so many tiles, evenly spread, are run beforehand for their statistics."""
ROUNDS = 2
"""How often: see :mod:`qartsr.upscale.shared_norms`."""

Report = Callable[[int, int], None]
"""Called after each run of the network with the number of runs done and their total."""


def bands(
    network: Network,
    lq: NDArray[Any],
    tile: int,
    overlap: int,
    report: Report,
    seed: int | None,
    rounds: int = ROUNDS,
    memory: LatentMemory | None = None,
    unfinished: Resume | None = None,
) -> Iterator[Floats]:
    """The network's output for ``lq`` (3, H, W) of 0 to 255, clamped: float (3, rows, W), from the top."""
    height, width = (-(-side // network.side_step) * network.side_step for side in lq.shape[1:])
    network.load.demand_fits(min(tile or height, height), min(tile or width, width))
    rows = grid(height, width, tile, overlap, network.multiple)
    places = [place for row in rows for place in row]
    probes = [(place, place.weight) for place in spread(places, PROBES)]
    norms = network.norms()
    rounds = min(rounds, norms.count()) if len(places) > 1 else 0
    before = rounds * len(probes)
    run = _Counted(_runner(network, lq, (height, width), seed, memory), before + len(places), report)
    kept = Unfinished()
    if unfinished is not None and len(places) >= LEAST:
        settings = {"tile": tile, "overlap": overlap, "rounds": rounds, "seed": seed, "size": list(lq.shape[1:])}
        pixels = hashlib.sha256(np.ascontiguousarray(lq).data).hexdigest()
        kept = Unfinished(
            unfinished.folder, {**unfinished.model(), **settings, "pixels": pixels, "type": str(lq.dtype)}
        )
    shared = kept.statistics(lambda: observe(norms, run, probes, rounds))
    if run.done < before:
        run.skip(before)
    with norms.imposed(shared):
        yield from _joined(rows, run, lq.shape[1], lq.shape[2], kept)


def _runner(
    network: Network, lq: NDArray[Any], size: tuple[int, int], seed: int | None, memory: LatentMemory | None
) -> Callable[[Place], Floats]:
    """Runs one tile."""
    inner = network.runner(size, seed, memory)

    def run(place: Place) -> Floats:
        result = inner(to_unit(cut(lq, place)), place)
        demand_finite(result)
        return np.clip(result, -1, 1)

    return run


def demand_finite(result: Floats) -> None:
    """Raise QartsrError for NaN and infinities in ``result`` (3, H, W), which pass every clamp as black or white."""
    if not np.isfinite(result).all():
        raise QartsrError(
            "the network's result is not a number (NaN or overflow)",
            "the model",
            "check its weights, or compute in a wider format",
        )


class _Counted:
    """Runs tiles, and reports."""

    def __init__(self, run: Callable[[Place], Floats], total: int, report: Report) -> None:
        self.done = 0
        self._run, self._total, self._report = run, total, report

    def __call__(self, place: Place) -> Floats:
        try:
            return self._run(place)
        finally:
            self.skip(1)

    def skip(self, runs: int) -> None:
        """They need not be done."""
        self.done += runs
        self._report(self.done, self._total)


def _joined(
    rows: list[list[Place]], run: _Counted, height: int, width: int, unfinished: Unfinished
) -> Iterator[Floats]:
    """Rows above the next row of tiles are final; the rest is carried over to it."""
    carried = np.zeros((3, 0, rows[0][-1].columns.stop), np.float32)
    tops = [row[0].top for row in rows[1:]] + [height]
    for number, (row, below) in enumerate(zip(rows, tops, strict=True)):
        found = unfinished.row(number)
        if found is None:
            top = row[0].top
            joined = np.zeros((3, len(row[0].vertical), carried.shape[2]), np.float32)
            joined[:, : carried.shape[1]] = carried
            for place in row:
                joined[:, :, place.columns] += run(place) * place.weight
            found = Row(joined[:, : below - top, :width], joined[:, below - top :].copy())
            unfinished.add(number, found)
        else:
            run.skip(len(row))
        carried = found.carried
        yield found.band


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
    memory: LatentMemory | None = None,
    unfinished: Resume | None = None,
) -> Picture:
    """The image, exactly 4 times as wide and high, in its own mode (L, LA, RGB or RGBA), with its metadata.

    16 bits per channel stay 16, in ``wide`` of the result. What is under alpha 0 has no influence on what is visible.

    Parameters
    ----------
    tile, overlap: output pixels; rounded up to multiples of ``facts.multiple``. ``overlap`` is at most half a tile, and
        ``tile`` 0 for no tiles.
    seed: of a sample of the encoder's posterior; None takes its mode.
    rounds: of observing what tiles share, 0 to 2: 0 is up to three times as quick, and neighbours differ visibly.
    memory: of a model of clips, what it knows of the frame before; None: the image stands for it.
    unfinished: where a picture of many tiles is kept as it grows, see :mod:`qartsr.upscale.unfinished`.

    Raises QartsrError for what is no image (:func:`qartsr.images.as_image`), for an image without pixels or with 32
    bits per channel, for a tile or overlap that cannot work, and for a result that is not a number.
    """
    network = network_of(model)
    tile, overlap = usable(tile, overlap, network.multiple)
    picture = as_image(image)
    source = enlarged(picture)
    parts = bands(network, source.lq, tile, overlap, report, seed, rounds, memory, unfinished)
    restored = finish(network.align, parts, source.lq)
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
