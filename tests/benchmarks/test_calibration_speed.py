"""The cached pass is the naive pass: what the benchmark compares computes the same."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.calibration_speed import cached, naive
from qartsr.config import Bits, load_params
from qartsr.config.parts import NoBranchConfig
from qartsr.config.training import ImageLossConfig, LPIPSConfig
from qartsr.quantize import observe, parameters_by_role, plan
from qartsr.training.quantized import Setting
from tests.training.tiny import one_step


def test_naive_and_cached_train_alike(root: Path) -> None:
    params, teacher = load_params(root / "params.yaml"), one_step()
    lq = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    # without L, whose gradient nearly cancels (R is live): Adam would step by the sign of rounding errors
    layer = params.method.layer.model_copy(update={"skip": NoBranchConfig(), "adapter": NoBranchConfig()})
    decided = plan(teacher, params.method.model_copy(update={"edge_layers": (), "layer": layer}), Bits(8, 8))
    config = params.quantize.model_copy(
        update={"steps_per_module": 1, "batch": 2, "loss": ImageLossConfig(lpips=0.0, mse=1.0)}
    )
    shared = (teacher, decided, observe(teacher, lq.split(4)), lq, config, Setting(LPIPSConfig(), "none", 1.0, 0))
    here, there = (
        [value.detach() for group in parameters_by_role(way(*shared)).values() for _, value in group]
        for way in (naive, cached)
    )
    apart = torch.cat([(a - b).abs().flatten() for a, b in zip(here, there, strict=True)])
    assert float((apart < 1e-5).float().mean()) > 0.9
