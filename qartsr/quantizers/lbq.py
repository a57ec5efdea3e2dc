"""LBQ: learned bounds (PassionSR, section 3.3, and its code; QArtSR, Eq. 3 and 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.config.parts import LBQConfig
from qartsr.quantizers.fake import HALF_STEP, fake_quantize, range_grid
from qartsr.quantizers.family import QUANTIZERS, gathered
from qartsr.quantizers.grid import Grid
from qartsr.quantizers.ranges import least_squares, usable
from qartsr.quantizers.stats import RangeStats


@QUANTIZERS.register(LBQConfig)
class LBQ(nn.Module):
    """Affine grid between two learned bounds, its zero point rounded so that 0 is on the grid.

    Gradients, with e = (x_hat - x) / scale, r = zero - lower / scale and L = 2**bits - 1:
    inside d/dupper = e / L = -d/dlower; below d/dupper = r / L, d/dlower = 1 - r / L;
    above d/dupper = 1 + r / L, d/dlower = -r / L. Inside reaches half a step beyond the ends with ``half_step``. In
    PassionSR's code r is the zero point instead: its zero point divides by the detached step of the call before.
    """

    def __init__(self, config: LBQConfig, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.levels, self.shape, self.init = 2**bits - 1, shape, config.init
        self.beyond = HALF_STEP if config.half_step else 0.0
        self.lower = nn.Parameter(torch.full(shape, -1.0))
        self.upper = nn.Parameter(torch.full(shape, 1.0))

    @torch.no_grad()
    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """Start at the ends of the data, or at the shrunk range with the least squared error (``init: mse``)."""
        found = gathered(stats, self.shape)
        search = self.init == "mse"
        lower, upper = least_squares(found, self.levels) if search else usable(found.lower, found.upper)
        self.lower.copy_(lower.reshape(self.shape))
        self.upper.copy_(upper.reshape(self.shape))

    def grid(self, x: Tensor) -> Grid:
        """The present grid, the same for every ``x``."""
        return range_grid(self.lower, self.upper, self.levels)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` rounded to its grid, shaped like ``x``."""
        return fake_quantize(x, self.grid(x), self.beyond)
