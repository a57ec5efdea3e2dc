"""Learned step size (LSQ, 1902.08153), symmetric; with a learned offset (LSQ+, 2004.09576) where configured.

x_hat = round(clip((x - beta) / s, -2^(b-1), 2^(b-1) - 1)) s + beta. The step's gradient is scaled by
1 / sqrt(n Q_p), n elements per step. Started at s = 2 mean|x| / sqrt(Q_p); LSQ+'s offset at the middle of the range.
Deviation from both papers: weights themselves are not trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qartsr.config.parts import LSQConfig
from qartsr.quantizers.base import QUANTIZERS, AbstractQuantizer
from qartsr.quantizers.fake_quant import fake_quant, scale_gradient
from qartsr.quantizers.grid import Grid
from qartsr.quantizers.sample import Sample


@QUANTIZERS.register(LSQConfig)
class LSQ(AbstractQuantizer):
    """Learned step size; ``beta`` is a parameter with an offset and a zero buffer without."""

    beta: Tensor

    def __init__(self, config: LSQConfig, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.granularity, self.levels = config.granularity, 2**bits - 1
        self._lowest, self._highest = 2 ** (bits - 1), 2 ** (bits - 1) - 1
        self.step = torch.nn.Parameter(torch.ones(shape))
        if config.offset:
            self.beta = torch.nn.Parameter(torch.zeros(shape))
        else:
            self.register_buffer("beta", torch.zeros(shape))

    def calibrate(self, sample: Sample) -> None:
        """Initial step and offset."""
        with torch.no_grad():
            if isinstance(self.beta, torch.nn.Parameter):
                low, high = sample.minmax()
                self.beta.copy_(((low + high) / 2).reshape(self.beta.shape))
            centred = Sample(sample.values - self.beta.reshape(-1, 1), sample.weights)
            start = 2 * centred.mean_abs() / math.sqrt(max(self._highest, 1))
            self.step.copy_(start.clamp_min(1e-8).reshape(self.step.shape))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` on the grid."""
        factor = 1 / math.sqrt(x.numel() / self.step.numel() * max(self._highest, 1))
        scale = scale_gradient(self.step.clamp_min(1e-8), factor)
        return fake_quant(x - self.beta, scale, torch.full_like(scale, -self._lowest), self.levels) + self.beta

    def grid(self, x: Tensor) -> Grid:
        """Static: does not depend on ``x``."""
        scale = self.step.detach().clamp_min(1e-8)
        return Grid(scale, self.beta.detach() - self._lowest * scale, self.levels)
