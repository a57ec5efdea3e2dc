"""The interface of quantizers, and the table from their configuration to their classes."""

from __future__ import annotations

import math
from typing import Protocol

from torch import Tensor, nn

from qartsr.config.parts import NoQuantizerConfig
from qartsr.quantizers.grid import Grid
from qartsr.quantizers.stats import RangeStats, stats_of
from qartsr.registry import Registry


class Quantizer(Protocol):
    """A map of tensors onto a uniform grid. Its one law: ``decode(encode(x, grid(x)), grid(x)) == forward(x)``."""

    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """Set the range from statistics of G groups, or from the very tensor to be quantized, of any shape."""

    def grid(self, x: Tensor) -> Grid:
        """The grid used for ``x``; scale and offset broadcast over it: scalar, (O, 1, ...) or (C, 1, ...)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Fake quantization of ``x``, same shape, differentiable."""


QUANTIZERS: Registry[Quantizer] = Registry("quantizer")
"""``build(config, bits=int, shape=tuple)``; ``shape`` is () for one range, (O, 1, ...) for one per output channel."""


def gathered(stats: RangeStats | Tensor, shape: tuple[int, ...]) -> RangeStats:
    """Statistics with as many groups as ``shape`` has elements. Raises ValueError when they do not fit."""
    groups = math.prod(shape)
    found = stats_of(stats, groups) if isinstance(stats, Tensor) else stats
    if found.groups != groups:
        raise ValueError(f"statistics of {found.groups} groups do not fit {groups} ranges")
    return found


@QUANTIZERS.register(NoQuantizerConfig)
class NoQuantizer(nn.Module):
    """Keeps the tensor in floating point."""

    def __init__(self, config: NoQuantizerConfig, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__()

    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """Nothing to set."""

    def grid(self, x: Tensor) -> Grid:
        """There is none: raises ValueError."""
        raise ValueError("a tensor kept in floating point has no grid")

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x
