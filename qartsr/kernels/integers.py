"""Grids in integers: unsigned codes shifted so that they fit int8 and, where possible, nothing else is needed.

A grid's values are q s + o, q in 0..L. With any integer z, a = q - z gives q s + o = a s + r, r = o + z s. For
z = -o / s the rest r is 0, and 0 is the code of the value 0: zero points vanish from the product, and zero padding is
zero. That z is an integer for every grid whose offset is a whole number of steps (all but LSQ+'s).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LOWEST, HIGHEST = -128, 127
"""What an int8 holds."""


class Shift(NamedTuple):
    """``code * scale + offset == (code - zero) * scale + rest``, elementwise, for codes 0..levels."""

    zero: Tensor
    """int64; ``-zero`` and ``levels - zero`` fit int8"""
    rest: Tensor
    """float64; exactly 0 where the offset is a whole number of steps that fits"""


def shift(scale: Tensor, offset: Tensor, levels: int) -> Shift:
    """The shift with the smallest rest that keeps all codes within int8; ``scale`` and ``offset`` fp32, one shape.

    Raises ValueError for more than 256 levels.
    """
    if levels > HIGHEST - LOWEST:
        raise ValueError(f"{levels + 1} levels do not fit int8")
    wanted = torch.round(-offset.double() / scale.double())
    zero = wanted.clamp(levels - HIGHEST, -LOWEST)
    # the offset was rounded to fp32 when it was made: that is no rest
    whole = (-zero.float() * scale).float() == offset
    rest = torch.where(whole, 0.0, offset.double() + zero * scale.double())
    return Shift(zero.to(torch.int64), rest)
