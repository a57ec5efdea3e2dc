"""LSQ and LSQ+: learned step size, and an offset that is learned or a whole number of steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qartsr.config.parts import LSQConfig, StepInit
from qartsr.quantizers.fake import HALF_STEP, SMALLEST_SCALE, fake_quantize, scale_gradient
from qartsr.quantizers.family import QUANTIZERS, gathered
from qartsr.quantizers.grid import Grid
from qartsr.quantizers.ranges import least_squares
from qartsr.quantizers.stats import RangeStats

SMALLEST_STEP = 1e-5
"""Of the whole range, at the start."""


def _plain_grid(lower: Tensor, upper: Tensor, levels: int) -> Grid:
    """The grid from ``lower`` to ``upper`` with a real offset."""
    return Grid(((upper - lower) / levels).clamp_min(SMALLEST_SCALE), lower, levels)


class _Symmetric(nn.Module):
    """Codes -2**(b-1) .. 2**(b-1) - 1 times the step, as offset -2**(b-1) * step."""

    def __init__(self, negative: int, init: StepInit) -> None:
        super().__init__()
        self.negative, self.init = negative, init

    def start(self, stats: RangeStats, levels: int) -> Tensor:
        """(G,) step 2 mean|x| / sqrt(positive codes) (LSQ, section 2.1), max|mu +- 3 sigma| / negative, or max|x|.

        The second is LSQ+'s for weights (section 4.2): with mu - 3 sigma and mu + 3 sigma, the larger magnitude.
        """
        if self.init == "minmax":
            return torch.maximum(stats.lower.abs(), stats.upper.abs()) / (levels - self.negative)
        if self.init == "sigma":
            mean, deviation = stats.moments()
            return (mean.abs() + 3 * deviation) / self.negative
        return 2 * stats.mean_magnitude() / math.sqrt(levels - self.negative)

    def forward(self, step: Tensor, factor: float) -> Tensor:
        """The offset that goes with ``step``."""
        return -self.negative * step


class _Shifted(nn.Module):
    """A learned real offset (LSQ+, 2004.09576), the value of code 0."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.full(shape, -1.0))

    def start(self, stats: RangeStats, levels: int) -> Tensor:
        """(G,) step of the range with the least squared error; the offset is its lower end."""
        lower, upper = least_squares(stats, levels, _plain_grid)
        self.value.copy_(lower.reshape(self.value.shape))
        return (upper - lower) / levels

    def forward(self, step: Tensor, factor: float) -> Tensor:
        """The offset, with LSQ's gradient scale."""
        return scale_gradient(self.value, factor)


class _Whole(nn.Module):
    """A zero point found once: a whole code, so that 0 stays on the grid while the step trains (EfficientDM's code)."""

    zero: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(shape))

    def start(self, stats: RangeStats, levels: int) -> Tensor:
        """(G,) step from the minimum to the maximum, both joined with 0; zero = round(-minimum / step)."""
        lower, upper = stats.lower.clamp_max(0), stats.upper.clamp_min(0)
        step = ((upper - lower) / levels).clamp_min(SMALLEST_STEP / levels)
        self.zero.copy_((-lower / step).round().reshape(self.zero.shape))
        return step

    def forward(self, step: Tensor, factor: float) -> Tensor:
        """The offset that goes with ``step``."""
        return -self.zero * step


def _offset(config: LSQConfig, bits: int, shape: tuple[int, ...]) -> _Symmetric | _Shifted | _Whole:
    if not config.offset:
        return _Symmetric(2 ** (bits - 1), config.init)
    return _Whole(shape) if config.init == "minmax" else _Shifted(shape)


@QUANTIZERS.register(LSQConfig)
class LSQ(nn.Module):
    """Learned step, symmetric; with ``offset`` learned too (LSQ+), or a fixed whole zero point (``init: minmax``).

    Gradients are multiplied by 1 / sqrt(n * positive codes), n the number of elements that share the step.
    """

    def __init__(self, config: LSQConfig, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.levels, self.shape = 2**bits - 1, shape
        self.beyond = HALF_STEP if config.half_step else 0.0
        self.positive = self.levels if config.offset else 2 ** (bits - 1) - 1
        self.step = nn.Parameter(torch.full(shape, 2.0 / self.levels))
        self.offset = _offset(config, bits, shape)

    @torch.no_grad()
    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """LSQ: from mean magnitude, deviation or largest magnitude. Offset: least squared error, or the ends."""
        start = self.offset.start(gathered(stats, self.shape), self.levels)
        self.step.copy_(start.clamp_min(SMALLEST_STEP / self.levels).reshape(self.shape))

    def grid(self, x: Tensor) -> Grid:
        """The present grid; gradients carry LSQ's scale for a tensor of ``x``'s size."""
        shared = x.numel() / max(1, math.prod(self.shape))
        factor = 1 / math.sqrt(max(1.0, shared) * self.positive)
        step = scale_gradient(self.step, factor, SMALLEST_SCALE)
        return Grid(step, self.offset(step, factor), self.levels)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` rounded to its grid, shaped like ``x``."""
        return fake_quantize(x, self.grid(x), self.beyond)
