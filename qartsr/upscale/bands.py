"""The network over all tiles of an image, handed out in bands of finished rows: no whole float image is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qartsr.errors import QartsrError
from qartsr.upscale.colour import Floats, to_unit
from qartsr.upscale.network import Network
from qartsr.upscale.places import Place, cut, grid, spread
from qartsr.upscale.statistics import observe

PROBES = 16
"""At most so many tiles, evenly spread, are run beforehand for their statistics."""
ROUNDS = 2
"""How often: see :mod:`qartsr.upscale.statistics`."""

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
) -> Iterator[Floats]:
    """The network's output for ``lq`` (3, H, W) of 0 to 255, clamped: float (3, rows, W), from the top."""
    height, width = (-(-side // network.factor) * network.factor for side in lq.shape[1:])
    rows = grid(height, width, tile, overlap, network.multiple)
    places = [place for row in rows for place in row]
    probes = [(place, place.weight) for place in spread(places, PROBES)]
    norms = network.norms()
    rounds = min(rounds, norms.count()) if len(places) > 1 else 0
    run = _counted(_runner(network, lq, (height, width), seed), rounds * len(probes) + len(places), report)
    with norms.imposed(observe(norms, run, probes, rounds)):
        yield from _joined(rows, run, lq.shape[1], lq.shape[2])


def _runner(network: Network, lq: NDArray[Any], size: tuple[int, int], seed: int | None) -> Callable[[Place], Floats]:
    """Runs one tile."""
    inner = network.runner(size, seed)

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


def _counted(run: Callable[[Place], Floats], total: int, report: Report) -> Callable[[Place], Floats]:
    done = 0

    def counted(place: Place) -> Floats:
        nonlocal done
        try:
            return run(place)
        finally:
            done += 1
            report(done, total)

    return counted


def _joined(rows: list[list[Place]], run: Callable[[Place], Floats], height: int, width: int) -> Iterator[Floats]:
    """Rows above the next row of tiles are final; the rest is carried over to it."""
    carried = np.zeros((3, 0, rows[0][-1].columns.stop), np.float32)
    tops = [row[0].top for row in rows[1:]] + [height]
    for row, below in zip(rows, tops, strict=True):
        top = row[0].top
        joined = np.zeros((3, len(row[0].vertical), carried.shape[2]), np.float32)
        joined[:, : carried.shape[1]] = carried
        for place in row:
            joined[:, :, place.columns] += run(place) * place.weight
        yield joined[:, : below - top, :width]
        carried = joined[:, below - top :].copy()
