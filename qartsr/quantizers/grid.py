"""The value object every uniform quantizer reduces to; packing, kernels and export know nothing else."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Grid(NamedTuple):
    """The ``levels + 1`` values ``code * scale + offset``, code in 0..levels."""

    scale: Tensor
    """> 0, broadcastable to the quantized tensor"""
    offset: Tensor
    """value of code 0, same shape as ``scale``; an exact multiple of ``scale`` for all but LSQ+"""
    levels: int
    """2**bits - 1"""


def positions(x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """(x - offset) / scale, a new tensor shaped like ``x``: where it lies between the codes."""
    return torch.sub(x, offset).div_(scale)


def nearest(x: Tensor, grid: Grid) -> Tensor:
    """Codes of ``x``, shaped like it, as floating-point integers in 0..levels: clipped, then rounded half to even."""
    return positions(x, grid.scale, grid.offset).clamp_(0, grid.levels).round_()


def encode(x: Tensor, grid: Grid) -> Tensor:
    """Codes of ``x``: int64 in 0..levels, shape of ``x``. NaN has no code; its result is undefined."""
    return nearest(x.detach(), grid).to(torch.int64)


def decode(codes: Tensor, grid: Grid) -> Tensor:
    """Values of integer ``codes``, same shape, in the grid's dtype; bitwise what the quantizer's forward returns.

    Multiplication and addition stay two operations: a fused one would round once and lose the exact zero.
    """
    return codes.to(grid.scale.dtype).mul_(grid.scale).add_(grid.offset)
