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
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Moments(NamedTuple):
    """Of one GroupNorm's input, per group, each (G,)."""

    mean: Tensor
    square: Tensor


Input = TypeVar("Input")
Statistics = dict[str, Moments]
"""By the name of the GroupNorm, in the order they are called."""


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
    norms = count_norms(model)
    if rounds > norms:
        raise ValueError(f"{rounds} rounds for {norms} norms")
    for number in range(1, rounds + 1):
        wanted = norms * number // rounds
        with imposed(model, fixed):
            seen = _round(model, run, inputs, wanted)
        fixed = {name: fixed.get(name, moments) for name, moments in islice(seen.items(), wanted)}
    return fixed


def count_norms(model: nn.Module) -> int:
    """How many GroupNorms the model has."""
    return sum(isinstance(part, nn.GroupNorm) for part in model.modules())


def _round(
    model: nn.Module, run: Callable[[Input], Any], inputs: Sequence[tuple[Input, Tensor]], wanted: int
) -> Statistics:
    """Moments of the first ``wanted`` norms."""
    sums: dict[str, Tensor] = {}
    weight, mass, count = torch.ones(1, 1), 0.0, 0

    def hook(name: str) -> Callable[..., None]:
        def record(norm: nn.GroupNorm, seen: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal count
            sums[name] = sums.get(name, 0) + _moments(norm, seen[0], weight) * float(weight.sum())
            count += 1
            if count == wanted:
                raise _EnoughError

        return record

    with _hooks(model, hook):
        for each, weight in inputs:
            count = 0
            mass += float(weight.sum())
            with suppress(_EnoughError):
                run(each)
    return {name: Moments(*(total / mass).float()) for name, total in sums.items()}


def _moments(norm: nn.GroupNorm, x: Tensor, weight: Tensor) -> Tensor:
    """(2, G) float64 mean and mean square of ``x`` (1, C, h, w), or (1, C, h * w) as attention has it."""
    grouped = x.float().reshape(norm.num_groups, norm.num_channels // norm.num_groups, -1)
    share = _resized(weight, x).to(grouped)
    share = share / share.sum()
    return torch.stack([grouped.mean(1) @ share, grouped.square().mean(1) @ share]).double()


def _resized(weight: Tensor, x: Tensor) -> Tensor:
    """The weight of every position of ``x``, flat."""
    height, width = x.shape[2:] if x.dim() == 4 else _sides(x.shape[2], *weight.shape)
    return F.adaptive_avg_pool2d(weight[None, None], (height, width)).flatten()


def _sides(count: int, height: int, width: int) -> tuple[int, int]:
    """Sides of ``count`` positions, given the image they come from."""
    rows = round((count * height / width) ** 0.5)
    return rows, count // rows


@contextmanager
def imposed(model: nn.Module, statistics: Statistics) -> Iterator[None]:
    """Within this context every observed GroupNorm normalises by ``statistics``."""

    def hook(name: str) -> Callable[..., Any]:
        def replace(norm: nn.GroupNorm, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return _normalise(norm, inputs[0], statistics[name]) if name in statistics else output

        return replace

    with _hooks(model, hook):
        yield


def _normalise(norm: nn.GroupNorm, x: Tensor, moments: Moments) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias, as one gain and one shift per channel."""
    variance = (moments.square - moments.mean.square()).clamp_min(0)
    width = norm.num_channels // norm.num_groups
    gain = torch.rsqrt(variance + norm.eps).repeat_interleave(width) * norm.weight
    shift = norm.bias - moments.mean.repeat_interleave(width) * gain
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    return torch.addcmul(shift.reshape(shape), x, gain.reshape(shape)).to(x.dtype)


@contextmanager
def _hooks(model: nn.Module, hook: Callable[[str], Callable[..., Any]]) -> Iterator[None]:
    norms = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.GroupNorm)]
    handles = [norm.register_forward_hook(hook(name)) for name, norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
