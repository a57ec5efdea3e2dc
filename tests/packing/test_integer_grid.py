"""A grid with an integer zero point and a remainder has the values of the grid it was made from; zero stays zero."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qartsr.packing.integer_grid import IntegerGrid, code_grid, int8_grid
from qartsr.quantizers import Grid
from qartsr.quantizers.fake import range_grid

bits = st.integers(2, 8)
scales = st.floats(2**-10, 8, width=32)
offsets = st.floats(-300, 300, width=32)


def values(grid: IntegerGrid) -> Tensor:
    codes = torch.arange(grid.levels + 1, dtype=torch.float64)
    return (codes - grid.zero) * grid.scale + grid.rest


@given(bits, scales, offsets)
def test_values_stay(bits: int, scale: float, offset: float) -> None:
    grid = Grid(torch.tensor(scale), torch.tensor(offset), 2**bits - 1)
    expected = torch.arange(2**bits, dtype=torch.float64) * scale + offset
    for made in (code_grid(grid), int8_grid(grid)):
        torch.testing.assert_close(values(made), expected, rtol=0, atol=abs(offset) * 2**-20 + scale * 2**-44)


@given(bits, scales, st.data())
def test_an_integer_multiple_leaves_no_rest(bits: int, scale: float, data: st.DataObject) -> None:
    zero = data.draw(st.integers(0, 2**bits - 1))
    step = torch.tensor(scale)
    made = code_grid(Grid(step, -zero * step, 2**bits - 1))
    assert (int(made.zero), float(made.rest)) == (zero, 0.0)


@given(bits, scales, offsets)
def test_weights_fit_int8_and_inputs_keep_zero_among_their_codes(bits: int, scale: float, offset: float) -> None:
    grid = Grid(torch.tensor(scale), torch.tensor(offset), 2**bits - 1)
    zero = int(int8_grid(grid).zero)
    assert zero <= 128 and grid.levels - zero <= 127
    assert 0 <= int(code_grid(grid).zero) <= grid.levels


def test_channels_are_independent() -> None:
    scale = torch.tensor([0.5, 0.25, 1.0])[:, None]
    offset = torch.tensor([-2.0, -0.8, 3.0])[:, None]
    made = int8_grid(Grid(scale, offset, 15))
    assert made.zero.flatten().tolist() == [4.0, 3.0, 0.0]
    assert made.rest.flatten().tolist() == pytest.approx([0.0, -0.05, 3.0])


@given(lower=st.floats(-100, 0, width=32), upper=st.floats(0, 100, width=32), bits=bits)
def test_learned_ranges_hold_zero(lower: float, upper: float, bits: int) -> None:
    grid = range_grid(torch.tensor(lower), torch.tensor(upper), 2**bits - 1)
    assert float(code_grid(grid).rest) == 0
    if bits < 8:
        assert float(int8_grid(grid).rest) == 0


def test_eight_bits_leave_a_rest_unless_the_zero_point_is_the_middle() -> None:
    scale = torch.full((2,), 0.5)
    found = int8_grid(Grid(scale, scale * torch.tensor([-10.0, -128.0]), 255))
    assert found.zero.tolist() == [128, 128] and found.rest.tolist() == [59.0, 0.0]


def test_a_hair_beside_zero_is_a_rest_for_every_engine() -> None:
    """2**-21 of the offset was zero enough for exported graphs, and was not for the integer engines."""
    grid = Grid(torch.tensor(1.0), torch.tensor(-7.0 * (1 + 2**-22)), 15)
    assert all(float(made(grid).rest) != 0 for made in (code_grid, int8_grid))


def test_more_than_eight_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="512 levels"):
        int8_grid(Grid(torch.ones(()), torch.zeros(()), 511))
