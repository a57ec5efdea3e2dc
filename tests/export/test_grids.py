"""A grid with an integer zero point and a remainder has the values of the grid it was made from."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qartsr.export.grids import IntegerGrid, input_grid, weight_grid
from qartsr.quantizers import Grid

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
    for made in (input_grid(grid), weight_grid(grid)):
        torch.testing.assert_close(values(made), expected, rtol=0, atol=abs(offset) * 2**-20 + scale * 2**-44)


@given(bits, scales, st.data())
def test_an_integer_multiple_leaves_no_rest(bits: int, scale: float, data: st.DataObject) -> None:
    zero = data.draw(st.integers(0, 2**bits - 1))
    step = torch.tensor(scale)
    made = input_grid(Grid(step, -zero * step, 2**bits - 1))
    assert (int(made.zero), float(made.rest)) == (zero, 0.0)


@given(bits, scales, offsets)
def test_weights_fit_int8_and_inputs_keep_zero_among_their_codes(bits: int, scale: float, offset: float) -> None:
    grid = Grid(torch.tensor(scale), torch.tensor(offset), 2**bits - 1)
    zero = int(weight_grid(grid).zero)
    assert zero <= 128 and grid.levels - zero <= 127
    assert 0 <= int(input_grid(grid).zero) <= grid.levels


def test_channels_are_independent() -> None:
    scale = torch.tensor([0.5, 0.25, 1.0])[:, None]
    offset = torch.tensor([-2.0, -0.8, 3.0])[:, None]
    made = weight_grid(Grid(scale, offset, 15))
    assert made.zero.flatten().tolist() == [4.0, 3.0, 0.0]
    assert made.rest.flatten().tolist() == pytest.approx([0.0, -0.05, 3.0])
