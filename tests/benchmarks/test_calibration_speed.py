"""The cached pass is the naive pass: what the benchmark compares computes the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.calibration_speed import cached, first_phase, naive
from qartsr.config import Bits, load_params
from qartsr.config.method import CommonConfig
from qartsr.config.training import ImageLossConfig, LPIPSConfig
from qartsr.quantize import observe, plan
from qartsr.training.optimizer import Losses, Optimizer, Setting
from tests.training.tiny import one_step


@pytest.mark.slow
def test_naive_and_cached_see_the_same_losses(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params, teacher, seen = load_params(root / "params.yaml"), one_step(), list[float]()
    descent = Optimizer.descent

    def watched(self: Optimizer, losses: Losses) -> Losses:
        def measure(number: int) -> dict[str, torch.Tensor]:
            found = losses(number)
            seen.append(float(found["total"].detach()))
            return found

        return descent(self, measure)

    monkeypatch.setattr(Optimizer, "descent", watched)
    lq = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    decided = plan(teacher, params.method.planned(CommonConfig()), Bits(2, 2))
    changes = {"steps": 1, "batch": 4, "loss": ImageLossConfig(lpips=0.0, mse=1.0)}
    config = first_phase(params).model_copy(update=changes)
    shared = (teacher, decided, observe(teacher, lq.split(4)), lq, config, Setting(LPIPSConfig(), "none", 1.0, 0))
    naive(*shared)
    cached(*shared)
    here, there = torch.tensor(seen).chunk(2)
    assert here[0] == pytest.approx(float(there[0]), rel=1e-5)
    # later on Adam steps by the sign of gradients that nearly cancel (L, phi), where rounding errors decide
    assert torch.allclose(here, there, rtol=0.05)
