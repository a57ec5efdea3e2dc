"""The reference for all engines that compute in integers: slow, plain, and exact in every sum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qartsr.engines.integer_layer import IntegerLayer, has_codes
from qartsr.engines.phases import UpsampledOp
from qartsr.layer import Conv2dOp
from qartsr.models import OneStepSR
from qartsr.models.libraries import Upsample2D
from qartsr.packing import PackedLayer
from qartsr.packing.packed_layer import Hierarchical

_KERNEL = Conv2dOp(stride=(1, 1), padding=(1, 1), dilation=(1, 1))


@dataclass(frozen=True)
class Integer:
    """Every layer with codes on both sides multiplies integers; layers with a floating-point side stay as they are.

    ``phases``: compute "upsample by 2, then convolve" on the small grid, see :mod:`qartsr.engines.phases`; the sums of
    codes are the same to the last bit, the low-rank branch is summed in another order.
    """

    phases: bool = False
    name: ClassVar[str] = "integer"

    def refusal(self, model: OneStepSR, device: torch.device) -> str | None:
        """It runs on the CPU, and needs at least one layer with codes."""
        if device.type != "cpu":
            return "it is a reference for the CPU"
        return None if any(_layers(model)) else "no layer has codes of both weight and input"

    def prepare(self, model: OneStepSR) -> OneStepSR:
        """The model with its layers exchanged, in place."""
        for name, layer in list(_layers(model)):
            model.set_submodule(name, IntegerLayer(layer))
        if self.phases:
            for name, upsampler in list(_upsamplers(model)):
                model.set_submodule(name, PhasedUpsampler(upsampler))
        return model


class PhasedUpsampler(nn.Module):
    """Takes the place of diffusers' Upsample2D."""

    def __init__(self, conv: IntegerLayer) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, hidden_states: Tensor, output_size: Any = None, *_: Any, **__: Any) -> Tensor:
        """(B, C, H, W) -> (B, O, 2 H, 2 W); another ``output_size`` (odd sizes in a UNet) as by diffusers."""
        doubled = tuple(2 * side for side in hidden_states.shape[-2:])
        if output_size is None or tuple(output_size) == doubled:
            return self.conv.run(hidden_states, UpsampledOp())
        return self.conv(F.interpolate(hidden_states, size=output_size, mode="nearest"))


def _layers(model: nn.Module) -> Iterator[tuple[str, PackedLayer]]:
    for name, module in model.named_modules():
        if isinstance(module, PackedLayer) and has_codes(module):
            yield name, module


def _upsamplers(model: nn.Module) -> Iterator[tuple[str, IntegerLayer]]:
    """Upsamplers that are nothing but nearest neighbour and a 3x3 convolution in integers, without blocks beside."""
    for name, module in model.named_modules():
        if not isinstance(module, Upsample2D) or not module.interpolate or module.norm is not None:
            continue
        conv = getattr(module, "conv", None)
        if not isinstance(conv, IntegerLayer) or isinstance(conv.skip, Hierarchical):
            continue
        if conv.op == _KERNEL and conv.codes.shape[2:] == (3, 3):
            yield name, conv
