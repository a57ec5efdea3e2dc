"""The reference for all engines that compute in integers: slow, plain, and exact in every sum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from qartsr.engines.integer_layer import in_integers, runs_in_integers
from qartsr.models import Backbone, OneStepSR
from qartsr.packing import PackedLayer

_NONE = "no layer has codes of both weight and input"


@dataclass(frozen=True)
class Integer:
    """Every layer with codes on both sides multiplies integers; layers with a floating-point side stay as they are."""

    name: ClassVar[str] = "integer"

    def refusal(self, model: OneStepSR, device: torch.device) -> str | None:
        """It runs on the CPU, and needs at least one layer with codes."""
        if device.type != "cpu":
            return "it is a reference for the CPU"
        return None if any(runs_in_integers(layer) for _, layer in _layers(model)) else _NONE

    def prepare(self, model: Backbone) -> OneStepSR:
        """The model with its layers exchanged, in place."""
        for name, layer in list(_layers(model)):
            if runs_in_integers(layer):
                model.set_submodule(name, in_integers(layer))
        return model


def _layers(model: nn.Module) -> Iterator[tuple[str, PackedLayer]]:
    for name, module in model.named_modules():
        if isinstance(module, PackedLayer):
            yield name, module
