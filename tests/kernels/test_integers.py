"""Shifted codes: they fit int8, they mean the same values, and zero points vanish where they can."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qartsr.kernels import shift
from qartsr.quantizers.fake import range_grid

BOUND = st.floats(-100, 100, width=32)


@given(scale=st.floats(2**-13, 8, width=32), offset=BOUND, bits=st.integers(2, 8))
def test_values_stay_what_they_were(scale: float, offset: float, bits: int) -> None:
    steps, start, levels = torch.tensor(scale), torch.tensor(offset), 2**bits - 1
    found = shift(steps, start, levels)
    codes = torch.arange(levels + 1).double()
    shifted = codes - found.zero
    assert shifted.min() >= -128 and shifted.max() <= 127
    values = codes * steps.double() + start.double()
    assert torch.allclose(shifted * steps.double() + found.rest, values, rtol=0, atol=1e-6 * (1 + abs(offset)))


@given(lower=st.floats(-100, 0, width=32), upper=st.floats(0, 100, width=32), bits=st.integers(2, 7))
def test_grids_that_hold_zero_have_no_rest_and_zero_is_zero(lower: float, upper: float, bits: int) -> None:
    grid = range_grid(torch.tensor(lower), torch.tensor(upper), 2**bits - 1)
    found = shift(grid.scale, grid.offset, grid.levels)
    assert float(found.rest) == 0 and float(found.zero * grid.scale + grid.offset) == 0


def test_eight_bits_leave_a_rest_unless_the_zero_point_is_the_middle() -> None:
    scale = torch.full((2,), 0.5)
    found = shift(scale, scale * torch.tensor([-10.0, -128.0]), 255)
    assert found.zero.tolist() == [128, 128] and found.rest.tolist() == [59.0, 0.0]


def test_more_than_eight_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="512 levels"):
        shift(torch.ones(()), torch.zeros(()), 511)
