"""The network over all tiles of an image, handed out in bands of finished rows: no whole float image is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from qartsr.data.pairs import to_unit
from qartsr.errors import QartsrError
from qartsr.models import OneStepSR
from qartsr.upscale.places import Place, cut, grid, spread
from qartsr.upscale.statistics import count_norms, imposed, observe

PROBES = 16
"""At most so many tiles, evenly spread, are run beforehand for their statistics."""
ROUNDS = 2
"""How often: see :mod:`qartsr.upscale.statistics`."""

Report = Callable[[int, int], None]
"""Called after each run of the network with the number of runs done and their total."""


def bands(
    model: OneStepSR, lq: Tensor, tile: int, overlap: int, report: Report, seed: int | None, rounds: int = ROUNDS
) -> Iterator[Tensor]:
    """The network's output for ``lq`` (3, H, W) of 0 to 255, clamped: float (3, rows, W) on the CPU, from the top."""
    height, width = (-(-side // model.facts.factor) * model.facts.factor for side in lq.shape[1:])
    rows = grid(height, width, tile, overlap, model.facts.multiple)
    places = [place for row in rows for place in row]
    probes = [(place, place.weight) for place in spread(places, PROBES)]
    rounds = min(rounds, count_norms(model)) if len(places) > 1 else 0
    run = _counted(_runner(model, lq, (height, width), seed), rounds * len(probes) + len(places), report)
    with imposed(model, observe(model, run, probes, rounds)):
        yield from _joined(rows, run, lq.shape[1], lq.shape[2])


def _runner(model: OneStepSR, lq: Tensor, size: tuple[int, int], seed: int | None) -> Callable[[Place], Tensor]:
    """Runs one tile. The noise of the posterior's sample is that of the whole latent, so tiles agree on it."""
    device, factor = model.device, model.facts.factor
    shape = (1, model.facts.latents, size[0] // factor, size[1] // factor) if seed is not None else (0,)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed or 0))

    def run(place: Place) -> Tensor:
        part = to_unit(cut(lq, place)[None]).to(device)
        if seed is None:
            output = model(part)
        else:
            rows, columns = (slice(side.start // factor, side.stop // factor) for side in (place.rows, place.columns))
            output = model(part, noise[:, :, rows, columns].to(device))
        result: Tensor = output[0].float()
        demand_finite(result)
        return result.clamp(-1, 1).cpu()

    return run


def demand_finite(result: Tensor) -> None:
    """Raise QartsrError for NaN and infinities in ``result`` (3, H, W), which pass every clamp as black or white."""
    if not bool(result.isfinite().all()):
        raise QartsrError(
            "the network's result is not a number (NaN or overflow)",
            "the model",
            "check its weights, or compute in a wider format",
        )


def _counted(run: Callable[[Place], Tensor], total: int, report: Report) -> Callable[[Place], Tensor]:
    done = 0

    def counted(place: Place) -> Tensor:
        nonlocal done
        try:
            return run(place)
        finally:
            done += 1
            report(done, total)

    return counted


def _joined(rows: list[list[Place]], run: Callable[[Place], Tensor], height: int, width: int) -> Iterator[Tensor]:
    """Rows above the next row of tiles are final; the rest is carried over to it."""
    carried = torch.zeros(3, 0, rows[0][-1].columns.stop)
    tops = [row[0].top for row in rows[1:]] + [height]
    for row, below in zip(rows, tops, strict=True):
        top = row[0].top
        joined = torch.zeros(3, len(row[0].vertical), carried.shape[2])
        joined[:, : carried.shape[1]] = carried
        for place in row:
            joined[:, :, place.columns] += run(place) * place.weight
        yield joined[:, : below - top, :width]
        carried = joined[:, below - top :].clone()
