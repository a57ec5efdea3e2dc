"""Four small convolutions are the upsampled one: equal integers everywhere, the border too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from qartsr.engines import phase_convolution, phase_kernels
from qartsr.engines.phases import UpsampledOp

SIDE = st.integers(1, 6)


def drawn(seed: int, *shape: int, low: int = -15, high: int = 15) -> torch.Tensor:
    return torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed))


def by_hand(x: torch.Tensor, kernel: torch.Tensor, border: torch.Tensor) -> torch.Tensor:
    """Independent truth: repeat pixels, put ``border`` (C,) around them, and sum int64 products one tap at a time."""
    big = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    framed = border[None, :, None, None].expand(len(x), -1, big.shape[2] + 2, big.shape[3] + 2).clone()
    framed[:, :, 1:-1, 1:-1] = big
    height, width = big.shape[2:]
    return sum(
        torch.einsum("bchw,oc->bohw", framed[:, :, i : i + height, j : j + width], kernel[:, :, i, j])
        for i in range(3)
        for j in range(3)
    )  # type: ignore[return-value]


@given(height=SIDE, width=SIDE, channels=st.integers(1, 4), outputs=st.integers(1, 3), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_equal_to_the_direct_integer_convolution(
    height: int, width: int, channels: int, outputs: int, seed: int
) -> None:
    x, kernel = drawn(seed, 2, channels, height, width), drawn(seed + 1, outputs, channels, 3, 3)
    border = drawn(seed + 2, channels)  # padding is a value of x: its code need not be 0
    small = border[None, :, None, None].expand(2, -1, height + 2, width + 2).clone()
    small[:, :, 1:-1, 1:-1] = x
    found = phase_convolution(small.double(), phase_kernels(kernel).double())
    assert torch.equal(found.long(), by_hand(x, kernel, border))


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_kernels_are_sums_of_codes(seed: int) -> None:
    kernel = drawn(seed, 3, 2, 3, 3)
    phases = phase_kernels(kernel)
    assert phases.shape == (2, 2, 3, 2, 2, 2) and phases.dtype == kernel.dtype
    assert torch.equal(phases.sum((4, 5)), kernel.sum((2, 3)).expand(2, 2, 3, 2))  # every phase uses every tap once
    assert phases.abs().max() <= 4 * 15 < 128
    corners = torch.stack([kernel[:, :, 0, 0], kernel[:, :, 0, 2], kernel[:, :, 2, 0], kernel[:, :, 2, 2]])
    alone = [phases[a, b, :, :, a, b] for a in (0, 1) for b in (0, 1)]
    assert torch.equal(torch.stack(alone), corners)


@pytest.mark.parametrize("bias", [None, torch.tensor([1.0, -2.0, 0.5])])
def test_the_operation_is_that_of_the_convolution_behind_the_upsampling(bias: torch.Tensor | None) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 5, 3, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 4, 3, 3, generator=generator, dtype=torch.float64)
    bias = None if bias is None else bias.double()
    op = UpsampledOp()
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    torch.testing.assert_close(op(op.pad(x), weight, bias), expected, rtol=1e-12, atol=1e-12)
    matrix = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(op.pointwise(x, matrix), torch.einsum("oc,bchw->bohw", matrix, x))
