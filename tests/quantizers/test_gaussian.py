"""The Gaussian grid against a numerical integral, and its ranges per channel and per token."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from qartsr.config.parts import GaussianConfig
from qartsr.quantizers import CLIP, KAPPA, QUANTIZERS, TokenGaussian, decode, encode, gaussian_grid


def _error(bits: int, clip: float) -> float:
    """Mean squared error for N(0, 1) by the trapezoidal rule over 400,001 points to 12 sigma."""
    x = torch.linspace(-12, 12, 400_001, dtype=torch.float64)
    step = 2 * clip / 2**bits
    nearest = ((x / step).floor().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) + 0.5) * step
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    return float(torch.trapezoid((x - nearest).square() * density, x))


@pytest.mark.parametrize("bits", CLIP)
def test_clip_and_kappa_are_those_of_the_integral(bits: int) -> None:
    least = _error(bits, CLIP[bits])
    assert KAPPA[bits] == pytest.approx(least, rel=2e-4)
    assert all(_error(bits, CLIP[bits] * factor) > least for factor in (0.98, 1.02))


@pytest.mark.parametrize("bits", CLIP)
def test_the_grid_has_the_error_it_promises(bits: int) -> None:
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0)) * 3
    quantizer = QUANTIZERS.build(GaussianConfig(), bits=bits, shape=())
    quantizer.calibrate(x)
    levels = decode(torch.arange(2**bits), quantizer.grid(x))
    torch.testing.assert_close(levels, -levels.flip(0))
    assert float((quantizer(x) - x).square().mean()) == pytest.approx(9 * KAPPA[bits], rel=0.03)


@pytest.mark.parametrize(("shape", "tail"), [((2, 5, 64), 0), ((2, 64, 5, 3), 2)])
def test_every_token_has_its_range(shape: tuple[int, ...], tail: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    factors = torch.logspace(-3, 3, 10 if tail == 0 else 30).reshape((2, 5, 1) if tail == 0 else (2, 1, 5, 3))
    quantizer = TokenGaussian(4, tail)
    found = quantizer(x)
    torch.testing.assert_close(quantizer(x * factors), found * factors)  # a token's scale is its own
    grid = quantizer.grid(x)
    assert torch.equal(decode(encode(x, grid), grid), found)
    assert quantizer(torch.zeros(shape)).abs().max() < 1e-6


def test_other_bits_are_refused() -> None:
    def build(levels: int) -> Tensor:
        return gaussian_grid(torch.ones(()), levels).scale

    with pytest.raises(ValueError, match="2 to 8 bits"):
        build(1)
