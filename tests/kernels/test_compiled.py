"""The Triton kernels compute what plain torch computes: on the CPU under the interpreter, and on a GPU where one is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qartsr.kernels.plain import PlainKernels
from tests.interpreter import TritonFor
from tests.kernels import cases

PLAIN = PlainKernels()


@pytest.mark.parametrize("bits", range(2, 9))
def test_unpacking(triton_for: TritonFor, bits: int) -> None:
    weight, _ = cases.packed(bits)
    assert torch.equal(triton_for({}).unpack(weight), PLAIN.unpack(weight))


@pytest.mark.parametrize("name", cases.PRODUCTS)
def test_product(triton_for: TritonFor, name: str) -> None:
    case = cases.PRODUCTS[name]
    found = cases.multiply(triton_for({cases.problem(case): case.tiles}), case)
    assert_near(found, cases.multiply(PLAIN, case), 1e-6 if case.dtype is torch.float32 else 1e-3)


def test_sums_do_not_depend_on_the_tiles(triton_for: TritonFor) -> None:
    case = cases.PRODUCTS["3x3, border"]
    assert torch.equal(
        cases.multiply(triton_for({cases.problem(case): cases.SPLIT}), case), cases.multiply(PLAIN, case)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("levels", [3, 15, 255])
@pytest.mark.parametrize("transform", [False, True], ids=["plain", "affine"])
def test_codes_are_equal(triton_for: TritonFor, transform: bool, levels: int, dtype: torch.dtype) -> None:
    made = cases.inputs(19, transform, levels, dtype)
    codes = triton_for({}).quantize(made.x, made.codes)
    assert torch.equal(codes, PLAIN.quantize(made.x, made.codes)) and codes.unique().numel() > 3


def test_halves_are_rounded_to_even(triton_for: TritonFor) -> None:
    codes = cases.inputs(1, False, 7).codes._replace(grid=torch.tensor([1.0, 0.0]), zero=2)
    x = torch.tensor([-1.0, 0.5, 1.5, 2.5, 3.5, 9.0]).reshape(1, 1, -1, 1)
    assert triton_for({}).quantize(x, codes).flatten().tolist() == [-2, -2, 0, 0, 2, 5]


@pytest.mark.parametrize(("groups", "channels"), [(1, 6), (3, 12), (4, 20)])
def test_group_norm(triton_for: TritonFor, groups: int, channels: int) -> None:
    """The inputs' mean is ten times their deviation."""
    made = cases.inputs(channels, False, 15)
    arguments = (made.x + 30, groups, made.weight, made.bias, 1e-6)
    for found, expected in zip(triton_for({}).group_norm(*arguments), PLAIN.group_norm(*arguments), strict=True):
        assert_near(found, expected, 1e-5)


def test_group_norm_of_more_pixels_than_a_chunk(triton_for: TritonFor) -> None:
    draw = torch.Generator().manual_seed(0)
    x, one = torch.randn(1, 30, 19, 4, generator=draw) + torch.arange(30)[:, None, None], torch.ones(4)
    for found, expected in zip(
        triton_for({}).group_norm(x, 2, one, one, 1e-6), PLAIN.group_norm(x, 2, one, one, 1e-6), strict=True
    ):
        assert_near(found, expected, 1e-5)


def test_activation(triton_for: TritonFor) -> None:
    made = cases.inputs(19, True, 15)
    found, expected = (
        kernels.activate(made.x, made.norm, made.codes, True) for kernels in (triton_for({}), PLAIN)
    )  # fmt: skip
    assert torch.equal(found.codes, expected.codes)
    assert_near(found.values, expected.values, 1e-6)
    without = triton_for({}).activate(made.x, made.norm, made.codes, False)
    assert torch.equal(without.codes, expected.codes) and not without.values.numel()


def assert_near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Relative to the largest expected value."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert float((found.float() - expected.float()).abs().max()) <= tolerance * float(expected.float().abs().max())
