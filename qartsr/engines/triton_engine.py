"""The GPU engine: int8 tensor cores through Triton, half precision between the layers, CUDA graphs around them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from qartsr.engines.triton_block import FusedBlock, fusable
from qartsr.engines.triton_graph import Cast, Replay
from qartsr.engines.triton_layer import KernelLayer, convertible
from qartsr.kernels import Kernels
from qartsr.models import Backbone, OneStepSR
from qartsr.packing import PackedLayer

if TYPE_CHECKING:
    from qartsr.kernels.tiles import Problem, Tiles

_CAPABILITY = (8, 0)
"""Ampere: the first generation with int8 tensor cores that Triton compiles to and CUDA graphs cheap enough."""


class Typed(nn.Module):
    """A layer that stays in floating point, in its own precision whatever comes."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer, self._dtype = layer, dtype

    def forward(self, x: Tensor) -> Tensor:
        """The layer on ``x``, in the type of ``x``; shapes are the layer's."""
        y: Tensor = self.layer(x.to(self._dtype)).to(x.dtype)
        return y


@dataclass(frozen=True)
class Triton:
    """Packed layers as integer kernels, residual blocks fused; each component captured per input size.

    Integer sums are exact and tiles are chosen by rule, so a run is reproducible bit for bit on one kind of GPU. What
    differs from the simulated model: activations between layers are rounded to ``dtype``.
    """

    name: ClassVar[str] = "triton"
    dtype: torch.dtype = torch.float16
    resident: bool = True
    """int8 weights in memory; False keeps the packed stream and unpacks each layer when it is needed"""
    graphs: bool = True
    tiles: Mapping[Problem, Tiles] = field(default_factory=dict)
    """measured by ``python -m benchmarks.gpu``; shapes that are not in it are cut by rule"""

    def refusal(self, model: Backbone, device: torch.device) -> str | None:
        """Without Triton, without a CUDA device of compute capability 8.0 or more, or without integer layers."""
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed"
        if device.type != "cuda" or not torch.cuda.is_available():
            return "it needs a CUDA GPU"
        if torch.cuda.get_device_capability(device) < _CAPABILITY:
            return "the GPU's compute capability is below 8.0"
        if not any(convertible(module) for module in model.modules()):
            return "the model has no integer layers"
        return None

    def prepare(self, model: Backbone) -> OneStepSR:
        """``model``, changed in place. Its images stay what they were, in type and layout."""
        from qartsr.kernels.compiled import TritonKernels  # imports Triton, which not every platform has

        return self.rebuilt(model, TritonKernels(self.tiles))

    def rebuilt(self, model: Backbone, kernels: Kernels) -> Backbone:
        """``model`` on ``kernels``, changed in place."""
        _swap(model, convertible, lambda layer: KernelLayer(layer, kernels, self.dtype, self.resident))
        _swap(model, fusable, FusedBlock)
        _swap(model, _is_packed, lambda layer: Typed(layer, torch.float32))
        for component in model.graph_modules():
            _swap(component, _is_float, lambda layer: Typed(layer, self.dtype))
            _to(component, self.dtype)
            run = Cast(component.forward, self.dtype)
            component.forward = Replay(component, run) if self.graphs else run
        return model


def _swap(model: nn.Module, wanted: Callable[[nn.Module], bool], make: Callable[..., nn.Module]) -> None:
    for name, module in list(model.named_modules()):
        if wanted(module):
            model.set_submodule(name, make(module))


def _is_packed(module: nn.Module) -> bool:
    return isinstance(module, PackedLayer)


def _is_float(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear)


def _to(module: nn.Module, dtype: torch.dtype) -> None:
    """Everything that is left in floating point, but nothing inside a layer that has its own precision."""
    if isinstance(module, KernelLayer) or (isinstance(module, Typed) and _is_packed(module.layer)):
        return
    for values in (module._parameters, module._buffers):
        for value in values.values():
            if value is not None and value.is_floating_point():
                value.data = value.data.to(dtype)
    for child in module.children():
        _to(child, dtype)
