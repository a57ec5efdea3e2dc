"""Segments run one after the other are the model, exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qartsr.models import OneStepSR, State, run_segments


@pytest.mark.parametrize("size", [(64, 64), (72, 80), (68, 84)])
def test_all_units_equal_the_forward(model: OneStepSR, size: tuple[int, int]) -> None:
    lq = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        assert torch.equal(run_segments(model, State(lq), model.segments()).hidden, model(lq))


def test_every_layer_is_in_exactly_one_unit(model: OneStepSR) -> None:
    layers = [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert sorted(name for unit in model.segments() for name in unit.layers) == sorted(layers)


def test_order_is_that_of_inference(model: OneStepSR) -> None:
    called: list[str] = []
    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    owner = {layer: number for number, unit in enumerate(model.segments()) for layer in unit.layers}
    first = [min(called.index(layer) for layer in unit.layers if layer in called) for unit in model.segments()]
    assert first == sorted(first)
    assert set(owner) >= set(called)
