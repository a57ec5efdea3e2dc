"""A component's forward in another precision, and replayed from a CUDA graph: about 1400 launches become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

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
