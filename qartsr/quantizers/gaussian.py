"""The symmetric uniform grid of least squared error for normal values (Q-DiT4SR, 2602.01273; Max, 1960).

2^b levels at +-(k + 1/2) step, step = 2 c_b sigma / 2^b; the squared error is kappa_b sigma^2. sigma is the root of the
mean square: of a tensor, channel or group where a range is fixed, of every token where it follows the input. After a
Hadamard rotation values are about normal, and tokens and channels about alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from qartsr.config.parts import GaussianConfig
from qartsr.quantizers.fake import SMALLEST_SCALE, fake_quantize
from qartsr.quantizers.family import QUANTIZERS, gathered
from qartsr.quantizers.grid import Grid
from qartsr.quantizers.stats import RangeStats

CLIP: Mapping[int, float] = {2: 1.991373, 3: 2.344078, 4: 2.681605, 5: 3.010221, 6: 3.330016, 7: 3.639532, 8: 3.937586}
"""Bits -> c_b, the end of the grid in sigmas."""
KAPPA: Mapping[int, float] = {
    2: 1.188460e-1, 3: 3.743966e-2, 4: 1.154288e-2, 5: 3.495211e-3, 6: 1.040045e-3, 7: 3.043328e-4, 8: 8.768619e-5,
}  # fmt: skip
"""Bits -> squared error of the grid for N(0, 1)."""


def gaussian_grid(sigma: Tensor, levels: int) -> Grid:
    """The grid for normal values of deviation ``sigma``, of any shape. Raises ValueError for other than 2 to 8 bits."""
    bits = levels.bit_length()
    if bits not in CLIP:
        raise ValueError(f"the Gaussian grid has 2 to 8 bits, not {bits}")
    step = (sigma * (2 * CLIP[bits] / 2**bits)).clamp_min(SMALLEST_SCALE)
    return Grid(step, step * (-levels / 2), levels)


class Gaussian(nn.Module):
    """A grid of fixed sigma, the root mean square of what it was calibrated with."""

    sigma: Tensor

    def __init__(self, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.levels, self.shape = 2**bits - 1, shape
        self.register_buffer("sigma", torch.ones(shape))

    @torch.no_grad()
    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """Find sigma."""
        mean, deviation = gathered(stats, self.shape).moments()
        self.sigma.copy_((mean.square() + deviation.square()).sqrt().reshape(self.shape))

    def grid(self, x: Tensor) -> Grid:
        """The calibrated grid, the same for every ``x``."""
        return gaussian_grid(self.sigma, self.levels)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` rounded to its grid, shaped like ``x``."""
        return fake_quantize(x, self.grid(x))


class TokenGaussian(nn.Module):
    """A grid for every token (position of a picture) of an input; nothing is stored.

    ``tail``: dimensions behind the channels, 0 for (..., C), 2 for (B, C, H, W).
    """

    def __init__(self, bits: int, tail: int) -> None:
        super().__init__()
        self.levels, self.tail = 2**bits - 1, tail

    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """Nothing to set: the ranges follow the tensor."""

    def grid(self, x: Tensor) -> Grid:
        """One range per token, (..., 1) or (B, 1, H, W); constants for the gradient."""
        return gaussian_grid(x.detach().square().mean(-1 - self.tail, keepdim=True).sqrt(), self.levels)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` rounded to its grid, shaped like ``x``."""
        return fake_quantize(x, self.grid(x))


@QUANTIZERS.register(GaussianConfig)
def gaussian(config: GaussianConfig, bits: int, shape: tuple[int, ...]) -> Gaussian:
    """Fixed ranges; those per token are :class:`TokenGaussian`'s, which asks for a layer's shape."""
    return Gaussian(bits, shape)
