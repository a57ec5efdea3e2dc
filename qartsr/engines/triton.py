"""The GPU engine: int8 tensor cores through Triton, half precision between the layers, CUDA graphs around them.

Layers are those of :mod:`qartsr.engines.triton_layer`. Of a residual block's halves only codes and one output touch
memory: normalisation and SiLU are inside the quantization, time embedding and shortcut inside the product. A component
is replayed from a CUDA graph, so about 1400 launches become one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qartsr.engines.triton_layer import KernelLayer, convertible
from qartsr.kernels import Kernels
from qartsr.models import Backbone, OneStepSR
from qartsr.models.sd_unet.diffusers_imports import ResnetBlock2D
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


class FusedBlock(nn.Module):
    """``shortcut(x) + conv2(SiLU(norm2(conv1(SiLU(norm1(x))) + proj(SiLU(temb)))))``, its parts under their old names.

    Somebody who watches or replaces a norm by a forward hook (tiles share their statistics so) is served unfused.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.time_emb_proj = block.time_emb_proj
        self.conv_shortcut = block.conv_shortcut

    def forward(self, input_tensor: Tensor, temb: Any = None) -> Tensor:
        """(B, C, H, W) and the time embedding (B, D), if the block takes one -> (B, O, H, W)."""
        x, nothing = input_tensor, input_tensor.new_empty(0)
        bias = x.new_zeros(1, 1) if self.time_emb_proj is None else self.time_emb_proj(F.silu(temb))
        hidden = _through(self.norm1, self.conv1, x, bias, nothing)
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return _through(self.norm2, self.conv2, hidden, x.new_zeros(1, 1), shortcut)


def fusable(block: Any) -> bool:
    """Whether ``block`` is a residual block that computes what :class:`FusedBlock` computes, with kernel layers."""
    return (
        type(block) is ResnetBlock2D
        and isinstance(block.conv1, KernelLayer)
        and isinstance(block.conv2, KernelLayer)
        and isinstance(block.norm1, nn.GroupNorm)
        and isinstance(block.norm2, nn.GroupNorm)
        and isinstance(block.nonlinearity, nn.SiLU)
        and block.upsample is None
        and block.downsample is None
        and (block.time_embedding_norm == "default" or block.time_emb_proj is None)
        and block.time_embedding_norm != "scale_shift"
        and not block.skip_time_act
        and block.output_scale_factor == 1
    )


def _through(norm: nn.GroupNorm, layer: KernelLayer, x: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    if norm._forward_hooks:
        return layer.extended(F.silu(norm(x)), bias, residual)
    return layer.activated(x, norm, bias, residual)


_WARM_UP = 3
"""Runs before a capture: Triton compiles, cuDNN chooses, the allocator grows."""

Forward = Callable[..., Any]


class Cast:
    """``forward`` with floating tensors in ``dtype``, images channels last; the output in the first input's type."""

    def __init__(self, forward: Forward, dtype: torch.dtype) -> None:
        self._forward, self._dtype = forward, dtype

    def __call__(self, first: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the component is called; its first argument is a tensor."""
        given = [_mapped(value, self._typed) for value in (first, *args)]
        named = {name: _mapped(value, self._typed) for name, value in kwargs.items()}
        return _mapped(self._forward(*given, **named), lambda value: value.to(first.dtype))

    def _typed(self, value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        layout = torch.channels_last if value.dim() == 4 else torch.contiguous_format
        return value.to(self._dtype, memory_format=layout)


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Any


class Replay:
    """``forward`` recorded once per shape of its inputs, and replayed.

    While a GroupNorm of ``module`` has a forward hook, which a recording would miss, ``forward`` itself is called.
    """

    def __init__(self, module: nn.Module, forward: Forward) -> None:
        self._forward = forward
        self._norms = [part for part in module.modules() if isinstance(part, nn.GroupNorm)]
        self._captured: dict[Any, _Captured] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As ``forward``; the output is the caller's own."""
        if any(norm._forward_hooks for norm in self._norms):
            return self._forward(*args, **kwargs)
        tensors = _tensors(args, kwargs)
        key = _key(args, kwargs)
        if key not in self._captured:
            self._captured[key] = self._capture(args, kwargs)
        captured = self._captured[key]
        for static, value in zip(captured.inputs, tensors, strict=True):
            static.copy_(value)
        captured.graph.replay()
        return _mapped(captured.output, torch.clone)

    def _capture(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Captured:
        args = tuple(_mapped(value, torch.clone) for value in args)
        kwargs = {name: _mapped(value, torch.clone) for name, value in kwargs.items()}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.no_grad():
            for _ in range(_WARM_UP):
                self._forward(*args, **kwargs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph):
            output = self._forward(*args, **kwargs)
        return _Captured(graph, _tensors(args, kwargs), output)


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    return [value for value in (*args, *(kwargs[name] for name in sorted(kwargs))) if isinstance(value, Tensor)]


def _key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Shapes, types and places of the tensors; the other arguments as they are, by name where they have one."""

    def described(value: Any) -> Any:
        return (value.shape, value.stride(), value.dtype, value.device) if isinstance(value, Tensor) else repr(value)

    return (*map(described, args), *((name, described(kwargs[name])) for name in sorted(kwargs)))


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """``function`` of a tensor, or of those in a tuple, a list or a diffusers output; anything else as it is."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return type(value)(**{name: _mapped(inner, function) for name, inner in value.items()})
    if isinstance(value, tuple | list):
        return type(value)(_mapped(inner, function) for inner in value)
    return value
