"""Moments of GroupNorms that several tiles of one image share, and who can observe and impose them.

A model of torch modules is hooked into; an engine that runs graphs has no modules and brings its own way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Moments(NamedTuple):
    """Of one GroupNorm's input, per group, each (G,)."""

    mean: Tensor
    square: Tensor


Statistics = dict[str, Moments]
"""By the name of the GroupNorm, in the order they are called."""

Seen = Callable[[str, Tensor], None]
"""Told a norm's name and its (2, G) float64 mean and mean square. It may raise, to end the run."""


class Norms(Protocol):
    """The GroupNorms of a model."""

    def count(self) -> int:
        """How many there are."""
        ...

    def imposed(self, statistics: Statistics) -> AbstractContextManager[None]:
        """Within this context every norm in ``statistics`` normalises by them."""
        ...

    def watched(self, weight: Tensor, seen: Seen) -> AbstractContextManager[None]:
        """Within this context ``seen`` is told the moments of each norm, in the order they are called.

        ``weight``: (H, W), how much each pixel of the network's input counts.
        """
        ...


class NormCarrier(ABC):
    """A model that brings a way of its own, for it has no modules."""

    @abstractmethod
    def norms(self) -> Norms:
        """All that the model has."""


def share(weight: Tensor, sides: Sequence[int]) -> Tensor:
    """``weight`` (H, W), at the resolution of a norm's input: (positions,), sums to 1.

    ``sides``: (h, w), or their product where the norm sees them flat, as attention has it.
    """
    height, width = sides if len(sides) == 2 else _sides(sides[0], *weight.shape)
    flat = F.adaptive_avg_pool2d(weight[None, None], (height, width)).flatten()
    return flat / flat.sum()


def _sides(count: int, height: int, width: int) -> tuple[int, int]:
    """Sides of ``count`` positions, given the image they come from."""
    rows = round((count * height / width) ** 0.5)
    return rows, count // rows


def affine(norm: nn.GroupNorm, moments: Moments) -> Tensor:
    """(2, C) gain and shift: x * gain + shift is (x - mean) / sqrt(variance + eps) * weight + bias."""
    variance = (moments.square - moments.mean.square()).clamp_min(0)
    width = norm.num_channels // norm.num_groups
    gain = torch.rsqrt(variance + norm.eps).repeat_interleave(width) * norm.weight
    return torch.stack([gain, norm.bias - moments.mean.repeat_interleave(width) * gain])
