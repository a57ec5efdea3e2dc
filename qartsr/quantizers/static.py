"""Grids that nothing trains: observed minimum and maximum, percentiles, least squared error; affine or symmetric."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from qartsr.config.parts import MinMaxConfig, MSEConfig, PercentileConfig
from qartsr.quantizers.fake import fake_quantize, range_grid
from qartsr.quantizers.family import QUANTIZERS, gathered
from qartsr.quantizers.grid import Grid
from qartsr.quantizers.ranges import MakeGrid, least_squares, symmetric_grid, usable
from qartsr.quantizers.stats import RangeStats

FindRange = Callable[[RangeStats, int, MakeGrid], tuple[Tensor, Tensor]]
"""Statistics, levels and the grid to be used -> (G,) lower and (G,) upper."""


class Static(nn.Module):
    """A grid between two calibrated ends, affine or symmetric about 0; the ends are buffers."""

    lower: Tensor
    upper: Tensor

    def __init__(self, find: FindRange, symmetric: bool, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.levels, self.shape = 2**bits - 1, shape
        self._find, self._make = find, symmetric_grid if symmetric else range_grid
        self.register_buffer("lower", torch.full(shape, -1.0))
        self.register_buffer("upper", torch.full(shape, 1.0))

    @torch.no_grad()
    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """Find the ends."""
        lower, upper = self._find(gathered(stats, self.shape), self.levels, self._make)
        self.lower.copy_(lower.reshape(self.shape))
        self.upper.copy_(upper.reshape(self.shape))

    def grid(self, x: Tensor) -> Grid:
        """The calibrated grid, the same for every ``x``."""
        return self._make(self.lower, self.upper, self.levels)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` rounded to its grid, shaped like ``x``."""
        return fake_quantize(x, self.grid(x))


@QUANTIZERS.register(MinMaxConfig)
def min_max(config: MinMaxConfig, bits: int, shape: tuple[int, ...]) -> Static:
    """Ends at the observed minimum and maximum (Jacob et al., 2018)."""

    def find(stats: RangeStats, levels: int, make: MakeGrid) -> tuple[Tensor, Tensor]:
        return usable(stats.lower, stats.upper)

    return Static(find, config.symmetric, bits, shape)


@QUANTIZERS.register(PercentileConfig)
def percentile(config: PercentileConfig, bits: int, shape: tuple[int, ...]) -> Static:
    """Ends at the (100 - p)-th and the p-th percentile of the observed values."""
    share = config.percentile / 100

    def find(stats: RangeStats, levels: int, make: MakeGrid) -> tuple[Tensor, Tensor]:
        return usable(stats.quantile(1 - share), stats.quantile(share))

    return Static(find, config.symmetric, bits, shape)


@QUANTIZERS.register(MSEConfig)
def least_error(config: MSEConfig, bits: int, shape: tuple[int, ...]) -> Static:
    """Ends of the shrunk range with the least squared error; never worse than minimum and maximum."""
    return Static(least_squares, config.symmetric, bits, shape)
