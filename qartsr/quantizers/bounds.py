"""Affine quantizers between two bounds: fixed (MinMax, Percentile) or learned (LBQ).

scale = (upper - lower) / levels; the zero point lower / scale is rounded (straight through), so that 0 is exactly on
the grid whenever it lies between the bounds. PassionSR, Eq. 5 to 7, with its released code's rounded zero point.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.config.parts import LBQConfig, MinMaxConfig, PercentileConfig
from qartsr.quantizers.base import QUANTIZERS, AbstractQuantizer
from qartsr.quantizers.fake_quant import fake_quant, round_straight_through
from qartsr.quantizers.grid import Grid
from qartsr.quantizers.sample import Sample, step


def _terms(lower: Tensor, upper: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    scale = step(lower, upper, levels)
    return scale, round_straight_through(lower / scale)


def _grid(lower: Tensor, upper: Tensor, levels: int) -> Grid:
    scale, zero = _terms(lower.detach(), upper.detach(), levels)
    return Grid(scale, zero * scale, levels)


class _FixedBounds(AbstractQuantizer):
    """Bounds set once, by ``calibrate`` of the two final classes below."""

    lower: Tensor
    upper: Tensor

    def __init__(self, granularity: str, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.granularity, self.levels = granularity, 2**bits - 1
        self.register_buffer("lower", torch.zeros(shape))
        self.register_buffer("upper", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` on the grid."""
        return fake_quant(x, *_terms(self.lower, self.upper, self.levels), self.levels)

    def grid(self, x: Tensor) -> Grid:
        """Static: does not depend on ``x``."""
        return _grid(self.lower, self.upper, self.levels)

    def _set(self, bounds: tuple[Tensor, Tensor]) -> None:
        self.lower.copy_(bounds[0].reshape(self.lower.shape))
        self.upper.copy_(bounds[1].reshape(self.upper.shape))


@QUANTIZERS.register(MinMaxConfig)
class MinMax(_FixedBounds):
    """Between the smallest and the largest value (Jacob et al. 2018); nothing is learned."""

    def __init__(self, config: MinMaxConfig, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__(config.granularity, bits, shape)

    def calibrate(self, sample: Sample) -> None:
        """Bounds from the extremes."""
        self._set(sample.minmax())


@QUANTIZERS.register(PercentileConfig)
class Percentile(_FixedBounds):
    """Between two percentiles; nothing is learned."""

    def __init__(self, config: PercentileConfig, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__(config.granularity, bits, shape)
        self._percentile = config.percentile

    def calibrate(self, sample: Sample) -> None:
        """Bounds from the percentiles."""
        self._set(sample.percentile(self._percentile))


@QUANTIZERS.register(LBQConfig)
class LBQ(AbstractQuantizer):
    """Learned bounds: both bounds are parameters."""

    def __init__(self, config: LBQConfig, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.granularity, self.levels = config.granularity, 2**bits - 1
        self._init = config.init
        self.lower = torch.nn.Parameter(torch.zeros(shape))
        self.upper = torch.nn.Parameter(torch.ones(shape))

    def calibrate(self, sample: Sample) -> None:
        """Bounds from the extremes, or from least squares."""
        low, high = sample.least_squares(self.levels) if self._init == "mse" else sample.minmax()
        with torch.no_grad():
            self.lower.copy_(low.reshape(self.lower.shape))
            self.upper.copy_(high.reshape(self.upper.shape))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` on the grid; gradients reach both bounds through step and zero point."""
        return fake_quant(x, *_terms(self.lower, self.upper, self.levels), self.levels)

    def grid(self, x: Tensor) -> Grid:
        """Static: does not depend on ``x``."""
        return _grid(self.lower, self.upper, self.levels)
