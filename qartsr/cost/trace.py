"""Every layer of a model with its parameters and multiply-accumulates, by running it once; on any device, meta too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ATTENTION, LAYER_NORM, GROUP_NORM, LINEAR, OTHER = "attention", "layer norm", "group norm", "linear", "other"
_DYNAMO = "torch._dynamo"


class Work(NamedTuple):
    """One layer, or the two matrix products of one attention."""

    name: str
    """full name of the module; of an attention: of the module that computes it"""
    kind: str
    """conv3x3, conv1x1, ..., linear, attention, layer norm, group norm, other"""
    shape: tuple[int, ...]
    """of the weight; () without one"""
    params: int
    """parameters of the module itself: weight and bias"""
    macs: int
    """multiply-accumulates of convolutions, linear layers and attention products; 0 for all else"""
    elements: int
    """values in its outputs"""

    @property
    def quantizable(self) -> bool:
        """Whether it is a convolution or a linear layer."""
        return self.kind == LINEAR or self.kind.startswith("conv")


def trace(model: nn.Module, *inputs: Tensor) -> tuple[Work, ...]:
    """Run ``model(*inputs)`` and count; a layer that runs twice is one entry with the sum, one that never runs has 0.

    Attention is seen where it is torch's ``scaled_dot_product_attention`` or ``torch.matmul``.
    """
    counted: dict[tuple[str, str], list[int]] = {}

    def count(name: str, kind: str, macs: int, elements: int) -> None:
        total = counted.setdefault((name, kind), [0, 0])
        total[0] += macs
        total[1] += elements

    with torch.no_grad(), _without_dynamo(), _running(model, count) as running, _Attentions(running, count):
        model(*inputs)
    layers = {name: module for name, module in model.named_modules() if next(_own(module), None) is not None}
    for name, module in layers.items():
        counted.setdefault((name, kind_of(module)), [0, 0])
    return tuple(
        Work(name, kind, *((), 0) if kind == ATTENTION else _weights(layers[name]), macs, elements)
        for (name, kind), (macs, elements) in counted.items()
    )


def kind_of(module: nn.Module) -> str:
    """The type of layer, a convolution's with its kernel."""
    if isinstance(module, nn.Conv2d):
        return "conv" + "x".join(str(side) for side in module.kernel_size)
    kinds = {nn.Linear: LINEAR, nn.LayerNorm: LAYER_NORM, nn.GroupNorm: GROUP_NORM}
    return next((kind for cls, kind in kinds.items() if isinstance(module, cls)), OTHER)


@contextmanager
def _without_dynamo() -> Iterator[None]:
    """Operations on the meta device run without TorchDynamo, which takes longer to load than torch itself.

    They are Python functions that torch wraps by ``torch._compile._disable_dynamo``: at its first call a wrapper loads
    TorchDynamo to say that it must leave the function alone. Nothing is compiled here, so in this context each function
    is taken as it is. Afterwards the wrappers know nothing of it and do as ever.
    """
    if _DYNAMO in sys.modules:
        yield
        return
    taken: list[Any] = []

    def disable(function: Any, recursive: bool = True, **_: Any) -> Any:
        taken.append(function)
        return function

    standing_in: Any = ModuleType(_DYNAMO)
    standing_in.disable = disable
    sys.modules[_DYNAMO] = standing_in
    try:
        yield
    finally:
        del sys.modules[_DYNAMO]
        for function in taken:
            function.__dict__.pop("__dynamo_disable", None)


Count = Callable[[str, str, int, int], None]


def _own(module: nn.Module) -> Iterator[nn.Parameter]:
    return module.parameters(recurse=False)


def _weights(module: nn.Module) -> tuple[tuple[int, ...], int]:
    """Shape of the weight, number of parameters."""
    own = dict(module.named_parameters(recurse=False))
    return tuple(own["weight"].shape) if "weight" in own else (), sum(value.numel() for value in own.values())


@contextmanager
def _running(model: nn.Module, count: Count) -> Iterator[list[str]]:
    """Yield the names of the modules now running, innermost last; layers are counted as they end."""
    names: list[str] = []
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: names.append(name)))
        handles.append(module.register_forward_hook(_ended(name, names, count)))
    try:
        yield names
    finally:
        for handle in handles:
            handle.remove()


def _ended(name: str, names: list[str], count: Count) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        names.pop()
        if next(_own(module), None) is not None and isinstance(output, Tensor):
            per_value = module.weight[0].numel() if isinstance(module, nn.Conv2d | nn.Linear) else 0
            count(name, kind_of(module), output.numel() * per_value, output.numel())

    return hook


class _Attentions(TorchFunctionMode):
    """Counts Q K^T and A V of every attention, torch's own and those written as products of activations."""

    def __init__(self, running: list[str], count: Count) -> None:
        super().__init__()
        self._running, self._count = running, count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            query, key, value = (*args, *(kwargs or {}).values())[:3]
            macs = query.numel() * key.shape[-2] + output.numel() * value.shape[-2]
            self._count(self._running[-1], ATTENTION, macs, output.numel())
        elif func is torch.matmul and self._running:
            self._count(self._running[-1], ATTENTION, output.numel() * args[0].shape[-1], output.numel())
        return output
