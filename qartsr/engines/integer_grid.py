"""A grid as integers need it: codes around zero, and what is left over."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qartsr.quantizers import Grid


class ShiftedGrid(NamedTuple):
    """The values ``(code - zero) * scale + rest`` of a :class:`Grid`; float64 tensors of the grid's shape."""

    scale: Tensor
    zero: Tensor
    """whole, in 0..levels: shifted codes lie in -levels..levels"""
    rest: Tensor
    """value of the shifted code 0; exactly 0 where the grid contains 0"""


def shifted(grid: Grid) -> ShiftedGrid:
    """The shift that leaves the least ``rest``.

    A grid that contains 0 (every learned range around 0, see ``range_grid``; symmetric LSQ) needs no correction terms:
    zero point and padding vanish. What remains is exact too, but costs a term: LSQ+ has a fraction of a step as offset,
    and a range of one sign may lie many steps off 0.
    """
    scale, offset = grid.scale.double(), grid.offset.double()
    zero = (-offset / scale).round().clamp(0, grid.levels)
    contains = zero.to(grid.scale.dtype) * grid.scale + grid.offset == 0  # as the fp32 grid itself computes its zero
    return ShiftedGrid(scale, zero, torch.where(contains, 0.0, offset + zero * scale))
