"""A uniform grid, the one thing every quantizer reduces to: the values ``code * scale + offset``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Grid(NamedTuple):
    """``levels + 1`` values ``code * scale + offset`` for codes 0..levels."""

    scale: Tensor
    """> 0, broadcastable to the tensor"""
    offset: Tensor
    """real, broadcastable to the tensor; an integer times ``scale`` where 0 must be exact"""
    levels: int
    """2**bits - 1"""


def encode(x: Tensor, grid: Grid) -> Tensor:
    """Codes (int64, 0..levels) of the grid values nearest to ``x``; ties to even, as ``torch.round``."""
    codes = (x / grid.scale - grid.offset / grid.scale).clamp(0, grid.levels)
    return torch.round(codes).to(torch.int64)


def decode(codes: Tensor, grid: Grid) -> Tensor:
    """The grid values of ``codes``."""
    return (codes + grid.offset / grid.scale) * grid.scale
