"""Nearest-neighbour upsampling by 2 with the 3x3 convolution behind it, as four 2x2 convolutions of the small grid.

An upsampled row is a small row twice, so the three rows under the kernel are only two different ones, and their taps
can be summed beforehand. Output row 2 i + a reads the small rows i + a - 1 and i + a:

    a = 0:   tap 0  |  tap 1 + tap 2          a = 1:   tap 0 + tap 1  |  tap 2

and columns alike: each of the four phases (a, b) of the output is a 2x2 convolution of its own, 16 products in the
place of 36 (2.25 times fewer), and the upsampled image is never made. The border needs no exception: one row of zeros
around the upsampled image is one row of zeros around the small one. Sums of integers are integers, so in codes the
result is equal to the last bit; a sum has at most four taps, so codes within +-31 still fit in 8 bits with their sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def phase_kernels(kernel: Tensor) -> Tensor:
    """(O, C, 3, 3) of any dtype -> (2, 2, O, C, 2, 2): the kernel of the output's phase [a, b], in the same dtype."""
    return _pairs(_pairs(kernel, 2), 4).transpose(0, 1)


def _pairs(taps: Tensor, dim: int) -> Tensor:
    """Three taps along ``dim`` -> two, once for each phase; the phase is the new first dimension."""
    first, middle, last = taps.unbind(dim)
    return torch.stack([torch.stack([first, middle + last], dim), torch.stack([first + middle, last], dim)])


def phase_convolution(x: Tensor, kernels: Tensor) -> Tensor:
    """(B, C, H + 2, W + 2), the small grid with its border, and :func:`phase_kernels` -> (B, O, 2 H, 2 W)."""
    height, width = x.shape[2] - 1, x.shape[3] - 1
    rows = [
        torch.stack([F.conv2d(x[:, :, a : a + height, b : b + width], kernels[a, b]) for b in (0, 1)], dim=-1)
        for a in (0, 1)
    ]
    return torch.stack(rows, dim=3).flatten(2, 3).flatten(3, 4)


@dataclass(frozen=True)
class UpsampledOp:
    """Takes the place of the 3x3 convolution's :class:`qartsr.layer.Conv2dOp` and is given the small grid."""

    def pad(self, x: Tensor) -> Tensor:
        """``x`` (B, C, H, W) with its zero border."""
        return F.pad(x, (1, 1, 1, 1))

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Upsample the padded ``x`` and convolve it with ``weight`` (O, C, 3, 3)."""
        y = phase_convolution(x, phase_kernels(weight))
        return y if bias is None else y + bias[:, None, None]

    def pointwise(self, x: Tensor, matrix: Tensor) -> Tensor:
        """``matrix`` (O, r) at every position."""
        return F.conv2d(x, matrix[:, :, None, None])
