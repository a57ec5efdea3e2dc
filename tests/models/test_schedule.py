"""The schedule against the published table and the closed form."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qartsr.models import alphas_cumprod, noise_level


def test_table_equals_the_official_one(parity: Path) -> None:
    table = load_file(parity / "scheduler_tables.safetensors")["alphas_cumprod"]
    assert torch.equal(alphas_cumprod(), table)


@pytest.mark.parametrize(("timestep", "expected"), [(999, 0.99767), (499, 0.84990), (1, 0.04128)])
def test_noise_of_the_papers_three_timesteps(timestep: int, expected: float) -> None:
    assert noise_level(timestep).noise == pytest.approx(expected, abs=5e-6)


def test_signal_and_noise_have_unit_power() -> None:
    for timestep in range(0, 1000, 37):
        level = noise_level(timestep)
        assert math.isclose(level.signal**2 + level.noise**2, 1.0, rel_tol=1e-12)
        assert math.isclose(level.amplification, level.noise / level.signal, rel_tol=1e-12)


@pytest.mark.parametrize("timestep", [-1, 1000])
def test_outside_the_schedule_is_refused(timestep: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        noise_level(timestep)
