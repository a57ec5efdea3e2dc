from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given
from hypothesis import strategies as st

from qartsr.data import degradation as blur
from qartsr.data.degradation import KERNEL, bell_kernel, final_sinc_kernel, random_kernel, sinc_kernel
from qartsr.data.rng import RandomDraws

SIZES = range(7, 22, 2)
ANGLE = 0.7


def dice(seed: int) -> RandomDraws:
    return RandomDraws(torch.Generator().manual_seed(seed))


@given(st.integers(0, 10_000), st.sampled_from([(0.2, 3.0), (0.2, 1.5)]))
def test_random_kernels_sum_to_one_and_look_the_same_turned_by_half_a_turn(
    seed: int, sigma: tuple[float, float]
) -> None:
    for kernel in (random_kernel(sigma, dice(seed)), final_sinc_kernel(dice(seed))):
        assert kernel.shape == (KERNEL, KERNEL) and kernel.isfinite().all()
        assert float(kernel.double().sum()) == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(kernel, kernel.flip(0, 1), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cutoff", [math.pi / 5, math.pi / 3, 2.0, math.pi])
def test_sinc_kernel_is_the_bessel_formula_in_float64(size: int, cutoff: float) -> None:
    steps = np.arange(size) - size // 2
    radius = np.hypot(*np.meshgrid(steps, steps))
    with np.errstate(invalid="ignore"):
        truth = cutoff * scipy.special.j1(cutoff * radius) / (2 * np.pi * radius)
    truth[size // 2, size // 2] = cutoff**2 / (4 * np.pi)
    truth = np.pad(truth / truth.sum(), (KERNEL - size) // 2)
    kernel = sinc_kernel(cutoff, size)
    np.testing.assert_allclose(kernel.numpy(), truth, atol=1e-6)
    for same in (kernel.T, kernel.flip(0), kernel.flip(1)):
        torch.testing.assert_close(kernel, same)


def test_sinc_kernel_passes_low_frequencies_and_stops_high_ones() -> None:
    """cos(w x) filtered by a symmetric kernel is cos(w x) times the kernel's response at w."""
    kernel, steps = sinc_kernel(math.pi / 3, 21).double(), torch.arange(21).double() - 10
    response = [float((kernel.sum(0) * torch.cos(w * steps)).sum()) for w in (0.3, 2.4)]
    assert response[0] == pytest.approx(1, abs=0.1) and response[1] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("kind", ["gauss", "general", "plateau"])
def test_bell_kernels_are_their_formula_of_the_covariance_matrix(kind: str) -> None:
    """The quadratic form through a matrix inverse in float64, instead of turned axes."""
    sigma, power = (2.5, 0.8), 1.0 if kind == "gauss" else 1.7
    turn = np.array([[math.cos(ANGLE), -math.sin(ANGLE)], [math.sin(ANGLE), math.cos(ANGLE)]])
    inverse = np.linalg.inv(turn @ np.diag(np.square(sigma)) @ turn.T)
    steps = np.arange(15) - 7
    points = np.stack(np.meshgrid(steps, steps), -1)  # (y, x, 2) of (x, y)
    form = np.einsum("yxi,ij,yxj->yx", points, inverse, points)
    truth = 1 / (1 + form**power) if kind == "plateau" else np.exp(-0.5 * form**power)
    kernel = bell_kernel(kind, 15, sigma, ANGLE, power)
    np.testing.assert_allclose(kernel.numpy(), np.pad(truth / truth.sum(), 3), atol=1e-7)


def test_a_wide_enough_gaussian_has_the_variance_it_was_given() -> None:
    kernel, steps = bell_kernel("gauss", 21, (2.0, 1.0), 0.0, 1.0).double(), torch.arange(21).double() - 10
    assert float((kernel.sum(0) * steps**2).sum()) == pytest.approx(4, rel=1e-3)  # along x
    assert float((kernel.sum(1) * steps**2).sum()) == pytest.approx(1, rel=1e-3)  # along y


def test_shapes_and_powers_are_drawn_as_often_as_osediff_draws_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """OSEDiff: sinc 0.1; the rest 0.45, 0.25, 0.12, 0.03, 0.12, 0.03; powers below 1 half of the time."""
    drawn: list[tuple[str, bool, float]] = []
    cutoffs: list[tuple[int, float]] = []
    blank = torch.zeros(KERNEL, KERNEL)

    def bell(kind: str, size: int, sigma: tuple[float, float], angle: float, power: float) -> torch.Tensor:
        assert size in SIZES and all(0.2 <= s <= 3 for s in sigma) and abs(angle) <= math.pi
        drawn.append((kind, sigma[0] == sigma[1], power))
        return blank

    def sinc(cutoff: float, size: int) -> torch.Tensor:
        cutoffs.append((size, cutoff))
        return blank

    monkeypatch.setattr(blur, "bell_kernel", bell)
    monkeypatch.setattr(blur, "sinc_kernel", sinc)
    source, count = dice(0), 6000
    for _ in range(count):
        random_kernel((0.2, 3.0), source)

    assert len(cutoffs) / count == pytest.approx(0.1, abs=0.015)
    found = Counter((kind, round_) for kind, round_, _ in drawn)
    for kind, round_share, turned in (("gauss", 0.45, 0.25), ("general", 0.12, 0.03), ("plateau", 0.12, 0.03)):
        assert found[kind, True] / len(drawn) == pytest.approx(round_share, abs=0.025)
        assert found[kind, False] / len(drawn) == pytest.approx(turned, abs=0.025)
    general = [power for kind, _, power in drawn if kind == "general"]
    assert 0.5 <= min(general) < 0.6 and 3.8 < max(general) <= 4
    assert np.mean(np.array(general) < 1) == pytest.approx(0.5, abs=0.06)
    plateau = [power for kind, _, power in drawn if kind == "plateau"]
    assert (
        min(plateau) == 1
        and 1.9 < max(plateau) <= 2
        and np.mean(np.array(plateau) == 1) == pytest.approx(0.5, abs=0.06)
    )
    assert min(c for size, c in cutoffs if size < 13) >= math.pi / 3
    assert math.pi / 5 <= min(c for size, c in cutoffs if size >= 13) < math.pi / 4
