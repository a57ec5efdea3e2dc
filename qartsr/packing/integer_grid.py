"""Grids as integers need them: a real offset becomes an integer zero point and, where need be, a remainder.

    code * scale + offset = (code - zero) * scale + rest,    offset = rest - zero * scale

Where 0 is on the grid the rest is 0: zero points vanish from the product, and zero padding is the code of zero. That is
so for every grid whose offset is a whole number of steps (all but LSQ+'s) and whose zero is a code of it. What remains
is exact too, but costs a correction term.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qartsr.quantizers import Grid

_LOWEST, _HIGHEST = -128, 127
"""What an int8 holds."""


class IntegerGrid(NamedTuple):
    """Values ``(code - zero) * scale + rest``, code in 0..levels; float64 tensors of the grid's shape."""

    scale: Tensor
    zero: Tensor
    """whole numbers in 0..levels"""
    rest: Tensor
    """exactly 0 where 0 is on the grid"""
    levels: int


def has_zero(grid: Grid, zero: Tensor) -> Tensor:
    """Where the code ``zero``, shaped like the scale, means the value 0: as the fp32 grid itself computes it."""
    return zero.to(grid.scale.dtype) * grid.scale + grid.offset == 0


def code_grid(grid: Grid) -> IntegerGrid:
    """The grid with the nearest code to 0 as its zero point."""
    return _integer_grid(grid, 0, grid.levels)


def int8_grid(grid: Grid) -> IntegerGrid:
    """As :func:`code_grid`, where ``code - zero`` must fit int8: at 8 bits only the codes' middle is free of a rest.

    Raises ValueError for more than 256 levels.
    """
    if grid.levels > _HIGHEST - _LOWEST:
        raise ValueError(f"{grid.levels + 1} levels do not fit int8")
    return _integer_grid(grid, max(0, grid.levels - _HIGHEST), min(-_LOWEST, grid.levels))


def _integer_grid(grid: Grid, least: int, most: int) -> IntegerGrid:
    """The grid with ``zero`` the nearest that lies in least..most."""
    scale, offset = grid.scale.double(), grid.offset.double()
    zero = torch.round(-offset / scale).clamp(least, most)
    return IntegerGrid(scale, zero, torch.where(has_zero(grid, zero), 0.0, offset + zero * scale), grid.levels)
