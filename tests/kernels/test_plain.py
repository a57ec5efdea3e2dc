"""The plain kernels against the library's own quantizers, torch's layers, and sums written out."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from qartsr.kernels import Epilogue, Geometry, InputCodes
from qartsr.kernels.plain import PlainKernels
from qartsr.quantizers import Grid, encode
from tests.kernels import cases

PLAIN = PlainKernels()


@pytest.mark.parametrize("bits", range(2, 9))
def test_unpacking_gives_the_codes_less_their_zero_points(bits: int) -> None:
    weight, codes = cases.packed(bits)
    assert torch.equal(PLAIN.unpack(weight).long(), (codes - weight.zero[:, None, None, None]).permute(0, 2, 3, 1))


def test_codes_are_the_quantizers() -> None:
    made = cases.inputs(19, True, 15)
    grid = Grid(made.codes.grid[0], made.codes.grid[1], 15)
    expected = encode((made.x - made.codes.delta) / made.codes.phi, grid) - made.codes.zero
    assert torch.equal(PLAIN.quantize(made.x, made.codes).long(), expected)


def test_halves_are_rounded_to_even() -> None:
    codes = InputCodes(cases.NOTHING, cases.NOTHING, torch.tensor([1.0, 0.0]), 7, 2)
    x = torch.tensor([-1.0, 0.5, 1.5, 2.5, 3.5, 9.0]).reshape(1, 1, 1, -1)
    assert PLAIN.quantize(x, codes).flatten().tolist() == [-2, -2, 0, 0, 2, 5]


def test_the_affine_map_is_group_norm_and_the_values_are_its_silu() -> None:
    made = cases.inputs(12, False, 255)
    norm = PLAIN.group_norm(made.x, 3, made.weight, made.bias, 1e-6)
    activation = PLAIN.activate(made.x, norm, made.codes, keep=True)
    expected = F.silu(F.group_norm(made.x.permute(0, 3, 1, 2), 3, made.weight, made.bias, 1e-6)).permute(0, 2, 3, 1)
    assert torch.allclose(activation.values, expected, atol=1e-5)
    assert torch.equal(activation.codes, PLAIN.quantize(activation.values, made.codes))
    assert not PLAIN.activate(made.x, norm, made.codes, keep=False).values.numel()


@pytest.mark.parametrize("name", ["stride 2", "uneven", "dilation", "1x1, stride 2"])
def test_sums_written_out(name: str) -> None:
    case = cases.PRODUCTS[name]
    geometry, (height, width) = case.geometry, case.sides
    codes = torch.randint(-128, 128, (1, height, width, case.channels)).to(torch.int8)
    weight = torch.randint(-128, 128, (case.outputs, *geometry.kernel, case.channels)).to(torch.int8)
    border = torch.randint(-128, 128, (case.channels,)).to(torch.int8)
    nothing, one = cases.NOTHING, torch.ones(case.outputs)
    sides = geometry.output(height, width)
    found = PLAIN.product(
        codes, weight, border, geometry, Epilogue(one, 0 * one[None], one, nothing, nothing, nothing), torch.float32
    )  # fmt: skip
    expected = torch.zeros(*sides, case.outputs, dtype=torch.int64)
    for i, j, p, q in itertools.product(*map(range, (*sides, *geometry.kernel))):
        y = i * geometry.stride[0] - geometry.padding[0] + p * geometry.dilation[0]
        x = j * geometry.stride[1] - geometry.padding[1] + q * geometry.dilation[1]
        a = (codes[0, y, x] if 0 <= y < height and 0 <= x < width else border).long()
        expected[i, j] += weight[:, p, q].long() @ a + a.sum()
    assert torch.equal(found[0].double(), expected.double())


def test_a_bias_for_another_batch_is_refused() -> None:
    nothing, codes = cases.NOTHING, torch.zeros(2, 1, 1, 4, dtype=torch.int8)
    epilogue = Epilogue(torch.ones(3), torch.zeros(5, 3), nothing, nothing, nothing, nothing)
    with pytest.raises(ValueError, match="5 biases for 2 images"):
        PLAIN.product(codes, torch.zeros(3, 1, 1, 4, dtype=torch.int8), nothing, Geometry(), epilogue, torch.float32)
