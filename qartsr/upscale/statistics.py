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

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from qartsr.models.moments import Moments, NormCarrier, Norms, Seen, Statistics, affine, share

Input = TypeVar("Input")


class _EnoughError(Exception):
    """The rest of the network need not run."""


def observe(
    model: nn.Module, run: Callable[[Input], Any], inputs: Sequence[tuple[Input, Tensor]], rounds: int
) -> Statistics:
    """Moments of every GroupNorm, pooled over ``run(input)``, which runs the model on one image, without its batch.

    Each input comes with a weight per pixel, (H, W) of the network's input. Rounds above the number of norms are
    refused; no round observes nothing.
    """
    fixed: Statistics = {}
    norms = norms_of(model)
    if rounds > norms.count():
        raise ValueError(f"{rounds} rounds for {norms.count()} norms")
    for number in range(1, rounds + 1):
        wanted = norms.count() * number // rounds
        with norms.imposed(fixed):
            seen = _round(norms, run, inputs, wanted)
        fixed = {name: fixed.get(name, moments) for name, moments in islice(seen.items(), wanted)}
    return fixed


def count_norms(model: nn.Module) -> int:
    """How many GroupNorms the model has."""
    return norms_of(model).count()


def imposed(model: nn.Module, statistics: Statistics) -> AbstractContextManager[None]:
    """Within this context every observed GroupNorm normalises by ``statistics``."""
    return norms_of(model).imposed(statistics)


def norms_of(model: nn.Module) -> Norms:
    """Those that the model brings, else those of its modules."""
    return model.norms() if isinstance(model, NormCarrier) else ModuleNorms(model)


def _round(
    norms: Norms, run: Callable[[Input], Any], inputs: Sequence[tuple[Input, Tensor]], wanted: int
) -> Statistics:
    """Moments of the first ``wanted`` norms."""
    sums: dict[str, Tensor] = {}
    for each, weight in inputs:
        with suppress(_EnoughError), norms.watched(weight, _adder(sums, float(weight.sum()), wanted)):
            run(each)
    mass = sum(float(weight.sum()) for _, weight in inputs)
    return {name: Moments(*(total / mass).float()) for name, total in sums.items()}


def _adder(sums: dict[str, Tensor], mass: float, wanted: int) -> Seen:
    count = 0

    def add(name: str, moments: Tensor) -> None:
        nonlocal count
        sums[name] = sums.get(name, 0) + moments * mass
        count += 1
        if count == wanted:
            raise _EnoughError

    return add


class ModuleNorms:
    """GroupNorms that are modules: forward hooks see and replace what they do."""

    def __init__(self, model: nn.Module) -> None:
        self._norms = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.GroupNorm)]

    def count(self) -> int:
        """How many there are."""
        return len(self._norms)

    def imposed(self, statistics: Statistics) -> AbstractContextManager[None]:
        """Outputs are replaced."""

        def hook(name: str) -> Callable[..., Any]:
            def replace(norm: nn.GroupNorm, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
                return _normalise(norm, inputs[0], statistics[name]) if name in statistics else output

            return replace

        return self._hooks(hook)

    def watched(self, weight: Tensor, seen: Seen) -> AbstractContextManager[None]:
        """Inputs are measured; ``weight`` (H, W) says how much each pixel counts."""

        def hook(name: str) -> Callable[..., None]:
            def record(norm: nn.GroupNorm, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                seen(name, _moments(norm, inputs[0], weight))

            return record

        return self._hooks(hook)

    @contextmanager
    def _hooks(self, hook: Callable[[str], Callable[..., Any]]) -> Iterator[None]:
        handles = [norm.register_forward_hook(hook(name)) for name, norm in self._norms]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _moments(norm: nn.GroupNorm, x: Tensor, weight: Tensor) -> Tensor:
    """(2, G) float64 mean and mean square of ``x`` (1, C, h, w), or (1, C, h * w) as attention has it."""
    grouped = x.float().reshape(norm.num_groups, norm.num_channels // norm.num_groups, -1)
    part = share(weight, x.shape[2:]).to(grouped)
    return torch.stack([grouped.mean(1) @ part, grouped.square().mean(1) @ part]).double()


def _normalise(norm: nn.GroupNorm, x: Tensor, moments: Moments) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias, as one gain and one shift per channel."""
    gain, shift = affine(norm, moments).reshape(2, 1, -1, *(1 for _ in x.shape[2:]))
    return torch.addcmul(shift, x, gain).to(x.dtype)
