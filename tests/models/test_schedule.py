"""The schedule against the published table and the closed form."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qartsr.models import Step
from qartsr.models.sd_unet.schedule import alphas_cumprod, eq6


def test_table_equals_the_official_one(parity: Path) -> None:
    table = load_file(parity / "scheduler_tables.safetensors")["alphas_cumprod"]
    assert torch.equal(alphas_cumprod(), table)


@pytest.mark.parametrize(("timestep", "expected"), [(999, 0.99767), (499, 0.84990), (1, 0.04128)])
def test_noise_of_the_papers_three_timesteps(timestep: int, expected: float) -> None:
    assert eq6(timestep).noise == pytest.approx(expected, abs=5e-6)


def test_signal_and_noise_have_unit_power() -> None:
    for timestep in range(0, 1000, 37):
        step = eq6(timestep)
        assert math.isclose(step.signal**2 + step.noise**2, 1.0, rel_tol=1e-12)
        assert math.isclose(step.amplification, step.noise / step.signal, rel_tol=1e-12)


def test_a_step_computes_eq_6_to_the_bit() -> None:
    """Its two numbers give back those of Eq. 6, in the precision of tensors, at every timestep."""
    z, f = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    for timestep, alpha in enumerate(alphas_cumprod().double()):
        expected = (z - float((1 - alpha).sqrt()) * f) / float(alpha.sqrt())
        assert torch.equal(eq6(timestep)(z, f), expected)


def test_a_step_is_its_two_numbers() -> None:
    z, f = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0])
    assert torch.equal(Step(1000, 1.0, -1.0)(z, f), z - f)
    torch.testing.assert_close(Step(0, 2.0, 0.5)(z, f), 2 * z + 0.5 * f)


@pytest.mark.parametrize("timestep", [-1, 1000])
def test_outside_the_schedule_is_refused(timestep: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        eq6(timestep)
