"""Our layer, put together as a method's row puts it together, with the values of a file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qartsr.config.parts import LayerRecipe
from qartsr.layer import QuantLayer, build_layer
from tests.parity.methods.fixtures import Case


def module(case: Case) -> nn.Module:
    """The floating-point layer of a case; stride and padding from its facts."""
    weight, bias = case.tensors["weight"], case.tensors["bias"]
    if weight.ndim == 2:
        made: nn.Module = nn.Linear(weight.shape[1], weight.shape[0])
    else:
        stride = case.facts.get("stride") or 1
        made = nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]), stride, case.facts["padding"])
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(bias)
    return made


def layer(case: Case, **parts: Any) -> QuantLayer:
    """The quantized layer of ``parts``."""
    bits = int(case.facts["bits"])
    return build_layer(module(case), "layer", LayerRecipe.model_validate(parts), bits, bits)


def operation(case: Case, x: Tensor, weight: Tensor, bias: Tensor | None = None, pad: bool = True) -> Tensor:
    """The layer's convolution or product; padded with zeros after whatever was done to ``x``, unless ``pad`` is off."""
    if weight.ndim == 2:
        return nn.functional.linear(x, weight, bias)
    padding = case.facts["padding"] if pad else 0
    return nn.functional.conv2d(x, weight, bias, case.facts.get("stride") or 1, padding)


def per_channel(vector: Tensor, like: Tensor) -> Tensor:
    """(C,) for weights and inputs alike: (C, 1, 1) where ``like`` is a convolution's weight."""
    return vector.reshape(-1, *(1,) * (like.ndim - 2))
