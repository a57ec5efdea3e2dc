"""GroupNorm in tiles: every tile normalised by the statistics of the whole image.

GroupNorm looks at all of its input. Left alone, each tile is normalised by itself, and neighbouring tiles differ in
brightness and contrast. So tiles are run once beforehand to observe, and once more with the observed moments imposed.

Two things decide how close that comes to the untiled network (sample model, differences in grey levels before the
colour fix: from 7.1 with each tile on its own to 0.3). Moments are weighted by how much of each pixel the joined image
will take from that tile, so pixels at a tile's edge, where the network sees zeros beyond it, hardly count. And they are
found in rounds: the first of two fixes the first half of the norms only, because the deeper ones saw input that the
earlier ones had normalised locally.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from qartsr.runtime.moments import Floats, Moments, Norms, Seen, Statistics

Input = TypeVar("Input")


class _EnoughError(Exception):
    """The rest of the network need not run."""


def observe(
    norms: Norms, run: Callable[[Input], Any], inputs: Sequence[tuple[Input, Floats]], rounds: int
) -> Statistics:
    """Moments of every GroupNorm, pooled over ``run(input)``, which runs the model on one image, without its batch.

    Each input comes with a weight per pixel, (H, W) of the network's input. Rounds above the number of norms are
    refused; no round observes nothing.
    """
    fixed: Statistics = {}
    if rounds > norms.count():
        raise ValueError(f"{rounds} rounds for {norms.count()} norms")
    for number in range(1, rounds + 1):
        wanted = norms.count() * number // rounds
        with norms.imposed(fixed):
            seen = _round(norms, run, inputs, wanted)
        fixed = {name: fixed.get(name, moments) for name, moments in islice(seen.items(), wanted)}
    return fixed


def _round(
    norms: Norms, run: Callable[[Input], Any], inputs: Sequence[tuple[Input, Floats]], wanted: int
) -> Statistics:
    """Moments of the first ``wanted`` norms."""
    sums: dict[str, NDArray[np.float64]] = {}
    for each, weight in inputs:
        with suppress(_EnoughError), norms.watched(weight, _adder(sums, float(weight.sum()), wanted)):
            run(each)
    mass = sum(float(weight.sum()) for _, weight in inputs)
    return {name: Moments(*(total / mass).astype(np.float32)) for name, total in sums.items()}


def _adder(sums: dict[str, NDArray[np.float64]], mass: float, wanted: int) -> Seen:
    count = 0

    def add(name: str, moments: NDArray[np.float64]) -> None:
        nonlocal count
        sums[name] = sums.get(name, 0) + moments * mass
        count += 1
        if count == wanted:
            raise _EnoughError

    return add
