"""Grids as integer formats have them: a real offset becomes an integer zero point and, where need be, a remainder.

code * scale + offset = (code - zero) * scale + rest,    offset = rest - zero * scale
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qartsr.quantizers import Grid

_EXACT = 2.0**-21
"""An offset that was computed in fp32 as a multiple of the scale is one up to this, relative to itself."""


class IntegerGrid(NamedTuple):
    """Values ``(code - zero) * scale + rest``, code in 0..levels; float64, shapes of the grid."""

    scale: Tensor
    zero: Tensor
    rest: Tensor
    """exactly 0 where the offset is a multiple of the scale and ``zero`` could be chosen freely"""
    levels: int


def integer_grid(grid: Grid, least: int, most: int) -> IntegerGrid:
    """The grid with ``zero`` the nearest that lies in least..most."""
    scale, offset = grid.scale.double(), grid.offset.double()
    zero = torch.round(-offset / scale).clamp(least, most)
    rest = offset + zero * scale
    return IntegerGrid(scale, zero, torch.where(rest.abs() <= offset.abs() * _EXACT, 0.0, rest), grid.levels)


def input_grid(grid: Grid) -> IntegerGrid:
    """For inputs: the zero point is one of the codes, so padding with zeros is a code wherever ``rest`` is 0."""
    return integer_grid(grid, 0, grid.levels)


def weight_grid(grid: Grid) -> IntegerGrid:
    """For weights: ``code - zero`` is an int8, and ``zero`` a code where that leaves a choice."""
    return integer_grid(grid, max(0, grid.levels - 127), min(128, grid.levels))
