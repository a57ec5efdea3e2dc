"""The fast autograd functions against plain autograd and against formulas worked out by hand, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from qartsr.config.parts import LSQConfig
from qartsr.quantizers import LSQ, Grid, fake_quantize, range_grid
from qartsr.quantizers.fake import HALF_STEP, scale_gradient
from tests.quantizers.reference import closed_form_bounds, composed, composed_bounds

SHAPES = {
    "tensor": ((3, 4, 5, 6), ()),
    "one": ((3, 4, 5, 6), (1,)),
    "conv channels": ((7, 4, 3, 3), (7, 1, 1, 1)),
    "linear channels": ((7, 9), (7, 1)),
}


def _random(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _gradients(out: Tensor, grad: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(out, leaves, grad))


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_scale_and_offset_match_plain_autograd(case: str, bits: int) -> None:
    shape, ranges = SHAPES[case]
    x, grad, levels = _random(shape, 0).requires_grad_(), _random(shape, 1), 2**bits - 1
    scale = (2.0 / levels * (1 + 0.3 * torch.rand(ranges, dtype=torch.float64))).requires_grad_()
    offset = (-0.8 + 0.2 * _random(ranges, 3)).requires_grad_()
    leaves = [x, scale, offset]
    ours = fake_quantize(x, Grid(scale, offset, levels))
    theirs = composed(x, scale, offset, levels)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for a, b in zip(_gradients(ours, grad, leaves), _gradients(theirs, grad, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_bounds_match_plain_autograd(case: str, bits: int, shift: float) -> None:
    """Also for ranges that lie on one side of zero."""
    shape, ranges = SHAPES[case]
    x, grad, levels = (_random(shape, 0) + shift).requires_grad_(), _random(shape, 1), 2**bits - 1
    lower = (shift - 1.1 + 0.1 * _random(ranges, 2)).requires_grad_()
    upper = (shift + 0.9 + 0.1 * _random(ranges, 3)).requires_grad_()
    leaves = [x, lower, upper]
    ours = fake_quantize(x, range_grid(lower, upper, levels))
    theirs = composed_bounds(x, lower, upper, levels)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for a, b in zip(_gradients(ours, grad, leaves), _gradients(theirs, grad, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_bounds_match_the_closed_form(bits: int) -> None:
    x, grad, levels = _random((400,), 4).requires_grad_(), _random((400,), 5), 2**bits - 1
    lower, upper = torch.tensor([-1.3, 1.1], dtype=torch.float64, requires_grad=True).unbind()
    ours = _gradients(fake_quantize(x, range_grid(lower, upper, levels)), grad, [x, lower, upper])
    to_x, to_lower, to_upper = closed_form_bounds(x.detach(), grad, -1.3, 1.1, levels)
    assert torch.equal(ours[0], to_x)
    assert ours[1].item() == pytest.approx(to_lower, rel=1e-9)
    assert ours[2].item() == pytest.approx(to_upper, rel=1e-9)


def test_the_half_step_beyond_each_end_is_outside() -> None:
    """Round-then-clip would have the same values but pass gradients here."""
    grid = Grid(torch.tensor(1.0), torch.tensor(0.0), 3)
    x = torch.tensor([-0.4, 0.0, 3.0, 3.4], requires_grad=True)
    out = fake_quantize(x, grid)
    assert out.tolist() == [0, 0, 3, 3]
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_lsq_step_gradient_is_the_papers(bits: int) -> None:
    """LSQ, Eq. 3: round(x/s) - x/s inside, -Qn below, Qp above, times 1 / sqrt(n Qp)."""
    negative, positive = 2 ** (bits - 1), 2 ** (bits - 1) - 1
    quantizer = LSQ(LSQConfig(), bits, ()).double()
    with torch.no_grad():
        quantizer.step.fill_(1.2 / negative)
    x, grad = _random((500,), 6), _random((500,), 7)
    (quantizer(x) * grad).sum().backward()
    v = x / quantizer.step.detach()
    slope = torch.where(v < -negative, -negative, torch.where(v > positive, positive, v.round() - v))
    expected = (grad * slope).sum() / math.sqrt(x.numel() * positive)
    torch.testing.assert_close(quantizer.step.grad, expected, rtol=1e-9, atol=0)


def test_lsq_counts_elements_per_step() -> None:
    """With a step per channel, n is the number of elements of a channel."""
    quantizer = LSQ(LSQConfig(granularity="channel"), 4, (5, 1)).double()
    x = _random((5, 40), 8)
    quantizer(x).sum().backward()
    alone = LSQ(LSQConfig(), 4, ()).double()
    alone(x[2]).sum().backward()
    torch.testing.assert_close(quantizer.step.grad[2, 0], alone.step.grad)


def test_lsq_plus_offset_learns_from_the_clipped() -> None:
    quantizer = LSQ(LSQConfig(offset=True), 2, ()).double()
    x = torch.tensor([-9.0, 0.0, 9.0, 9.0], dtype=torch.float64)
    quantizer(x).sum().backward()
    factor = 1 / math.sqrt(4 * 3)
    assert quantizer.offset.value.grad.item() == pytest.approx(3 * factor)


def test_frozen_ranges_still_pass_the_input_gradient() -> None:
    x = _random((50,), 9).requires_grad_()
    out = fake_quantize(x, range_grid(torch.tensor(-1.0), torch.tensor(1.0), 15))
    out.sum().backward()
    assert x.grad is not None and set(x.grad.tolist()) == {0.0, 1.0}


def test_channels_last_memory_gives_the_same_gradients() -> None:
    base, grad = _random((2, 4, 5, 6), 10), _random((2, 4, 5, 6), 11)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        x = base.clone(memory_format=layout).requires_grad_()
        lower, upper = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (-1.0, 1.2))
        out = fake_quantize(x, range_grid(lower, upper, 7))
        results.append(_gradients(out, grad.clone(memory_format=layout), [x, lower, upper]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_gradient_scale_keeps_the_value_and_the_floor() -> None:
    x = torch.tensor([0.3, -2.0], requires_grad=True)
    out = scale_gradient(x, 0.25, 1e-8)
    out.sum().backward()
    assert out.tolist() == [x[0].item(), pytest.approx(1e-8)] and x.grad is not None and x.grad.tolist() == [0.25, 0.25]


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("bits", [2, 4])
def test_gradients_of_rounding_before_clipping(case: str, bits: int) -> None:
    """``beyond``: the values stay, the half step beyond each end counts as inside."""
    shape, ranges = SHAPES[case]
    x, grad, levels = _random(shape, 0).requires_grad_(), _random(shape, 1), 2**bits - 1
    scale = (1.2 / levels * (1 + 0.3 * torch.rand(ranges, dtype=torch.float64))).requires_grad_()
    offset = (-0.6 + 0.1 * _random(ranges, 3)).requires_grad_()
    leaves = [x, scale, offset]
    ours, plain = (fake_quantize(x, Grid(scale, offset, levels), beyond) for beyond in (HALF_STEP, 0.0))
    torch.testing.assert_close(ours, plain, rtol=0, atol=0)
    found = _gradients(ours, grad, leaves)
    steps = ((x - offset) / scale).detach()
    inner = (steps >= -0.5) & (steps <= levels + 0.5)
    error = torch.where(inner, steps.round() - steps, (steps > 0) * float(levels))
    expected = [
        torch.where(inner, grad, 0),
        (grad * error).sum_to_size(scale.shape),
        torch.where(inner, 0, grad).sum_to_size(offset.shape),
    ]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert not torch.equal(found[0], _gradients(plain, grad, leaves)[0])
