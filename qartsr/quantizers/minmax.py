"""Grids that nothing trains: observed minimum and maximum, percentiles, and a constant's own minimum and maximum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.config.parts import MinMaxConfig, PercentileConfig
from qartsr.quantizers.fake import fake_quantize, range_grid
from qartsr.quantizers.family import QUANTIZERS, gathered
from qartsr.quantizers.grid import Grid
from qartsr.quantizers.ranges import usable
from qartsr.quantizers.stats import RangeStats


@QUANTIZERS.register(MinMaxConfig)
class MinMax(nn.Module):
    """Affine grid between the observed minimum and maximum (Jacob et al., 2018)."""

    lower: Tensor
    upper: Tensor

    def __init__(self, config: MinMaxConfig, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.levels, self.shape = 2**bits - 1, shape
        self.register_buffer("lower", torch.full(shape, -1.0))
        self.register_buffer("upper", torch.full(shape, 1.0))

    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """Take the ends."""
        found = gathered(stats, self.shape)
        lower, upper = usable(found.lower, found.upper)
        self.lower.copy_(lower.reshape(self.shape))
        self.upper.copy_(upper.reshape(self.shape))

    def grid(self, x: Tensor) -> Grid:
        """The calibrated grid, the same for every ``x``."""
        return range_grid(self.lower, self.upper, self.levels)

    def forward(self, x: Tensor) -> Tensor:
        """Fake quantization."""
        return fake_quantize(x, self.grid(x))


@QUANTIZERS.register(PercentileConfig)
class Percentile(nn.Module):
    """Affine grid between the (100 - p)-th and the p-th percentile of the observed values."""

    lower: Tensor
    upper: Tensor

    def __init__(self, config: PercentileConfig, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.levels, self.shape, self.share = 2**bits - 1, shape, config.percentile / 100
        self.register_buffer("lower", torch.full(shape, -1.0))
        self.register_buffer("upper", torch.full(shape, 1.0))

    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """Take the percentiles."""
        found = gathered(stats, self.shape)
        lower, upper = usable(found.quantile(1 - self.share), found.quantile(self.share))
        self.lower.copy_(lower.reshape(self.shape))
        self.upper.copy_(upper.reshape(self.shape))

    def grid(self, x: Tensor) -> Grid:
        """The calibrated grid, the same for every ``x``."""
        return range_grid(self.lower, self.upper, self.levels)

    def forward(self, x: Tensor) -> Tensor:
        """Fake quantization."""
        return fake_quantize(x, self.grid(x))


class OwnRange(nn.Module):
    """Affine grid between the minimum and maximum of the very tensor: for biases, which are constants at run time."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.levels = 2**bits - 1

    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """Nothing to set: the range follows the tensor."""

    def grid(self, x: Tensor) -> Grid:
        """One range for all of ``x``; a constant for the gradient."""
        values = x.detach()
        return range_grid(*usable(values.amin(), values.amax()), self.levels)

    def forward(self, x: Tensor) -> Tensor:
        """Fake quantization."""
        return fake_quantize(x, self.grid(x))
