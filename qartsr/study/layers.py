"""Where the error arises: the relative error of every quantized layer when it is given its floating-point input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qartsr.models import Backbone
from qartsr.quantize import quant_layers, quantizable

DIGITS = 6


@torch.no_grad()
def layer_errors(teacher: Backbone, student: Backbone, lq: Tensor) -> dict[str, float]:
    """Layer -> ||y_q - y|| / ||y|| (Frobenius) on ``lq`` (B, 3, H, W), y the teacher's output of that layer.

    y_q is the student's for the teacher's input of the layer: errors of other layers do not enter.
    """
    layers, errors = quant_layers(student), dict[str, float]()

    def hook(name: str) -> Any:
        def compare(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            noise = (layers[name](inputs[0]) - output).double().norm()
            errors[name] = round(float(noise / output.double().norm().clamp_min(1e-12)), DIGITS)

        return compare

    found = quantizable(teacher)
    handles = [found[name].register_forward_hook(hook(name)) for name in layers if name in found]
    try:
        teacher(lq)
    finally:
        for handle in handles:
            handle.remove()
    return {name: errors[name] for name in layers if name in errors}
