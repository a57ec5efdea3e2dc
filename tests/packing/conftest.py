"""Tiny quantized layers and models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from qartsr.config import parse_bits
from qartsr.config.parts import LayerRecipe, MethodConfig
from qartsr.models import OneStepSR
from qartsr.quantize import Plan, apply, initialise, observe, plan, quantized, round_for_storage

QARTSR: dict[str, Any] = {
    "weight": {"kind": "lbq", "granularity": "channel"},
    "input": {"kind": "lbq"},
    "transform": {"kind": "channel_scale"},
    "skip": {"kind": "svd", "rank": 2},
    "adapter": {"kind": "lora", "rank": 2},
}


def recipe(**changes: Any) -> LayerRecipe:
    """QArtSR's layer, some parts exchanged."""
    return LayerRecipe.model_validate({**QARTSR, **changes})


def trained(model: nn.Module, seed: int = 0) -> None:
    """As if trained: every trainable value moves a little, from a seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in quantized(model).values():
            for parameter in layer.parameters():
                noise = torch.rand(parameter.shape, generator=generator) - 0.5
                parameter.add_(noise * 0.1 * parameter.abs().mean().clamp_min(0.05))
    round_for_storage(model)


def quantize(model: OneStepSR, bits: str, layer: LayerRecipe, **settings: Any) -> Plan:
    """Quantize ``model`` in place, and its plan."""
    decided = plan(model, MethodConfig(name="test", layer=layer, **settings), parse_bits(bits))
    statistics = observe(model, [torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1])
    apply(model, decided)
    initialise(model, statistics)
    trained(model)
    model.eval().requires_grad_(False)
    return decided


@pytest.fixture()
def lq() -> torch.Tensor:
    """One network input (1, 3, 32, 32) in [-1, 1]."""
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
