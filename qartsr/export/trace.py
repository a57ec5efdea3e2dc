"""What a part of the model computes, as a list of torch operations in which a quantized layer is one operation.

torch.export follows the code with tensors that have shapes and no values; packed layers are replaced by leaves for its
sake, in a copy that shares every tensor, so nothing is decoded and the model is left as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, export
from torch.fx import Node

from qartsr.layer import Conv2dOp
from qartsr.models import Backbone
from qartsr.packing import PackedLayer

PREFIX = "model."
_LEAST, _MOST = 32, 1 << 14
"""Bounds of a varying side of a part's input, in steps; smaller ones run too, the bound keeps 1 from being special."""


@torch.library.custom_op("qartsr::layer", mutates_args=())
def layer_op(x: Tensor, name: str, shape: Sequence[int], geometry: Sequence[int]) -> Tensor:
    """The quantized layer ``name`` on ``x``, (B, C, H, W) or (..., C): stands in graphs only.

    ``shape``: of its weight; ``geometry``: stride, padding, dilation of a convolution.
    """
    raise NotImplementedError(name)


@layer_op.register_fake
def _(x: Tensor, name: str, shape: Sequence[int], geometry: Sequence[int]) -> Tensor:
    weight = x.new_empty(tuple(shape))
    if not geometry:
        return F.linear(x, weight)
    stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:]
    return F.conv2d(x, weight, None, stride, padding, dilation)


class _Leaf(nn.Module):
    def __init__(self, name: str, layer: PackedLayer) -> None:
        super().__init__()
        op = layer.op
        self._name, self._shape = name, list(layer.spec.shape)
        self._geometry = [*op.stride, *op.padding, *op.dilation] if isinstance(op, Conv2dOp) else []

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.ops.qartsr.layer(x, self._name, self._shape, self._geometry)
        return found


class Encoder(nn.Module):
    """(1, 3, H, W) image -> mean and log-variance of the raw latent."""

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`Backbone.posterior`."""
        return self.model.posterior(x)


class Denoiser(nn.Module):
    """(1, C, h, w) latent -> the noise that the UNet predicts."""

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`Backbone.predict`."""
        return (self.model.predict(x),)


class Decoder(nn.Module):
    """(1, C, h, w) raw latent -> image."""

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The VAE's decoder, ``x`` already divided by its scaling factor."""
        return (self.model.reconstruct(x),)


Part = type[Encoder] | type[Denoiser] | type[Decoder]


class Trace(NamedTuple):
    """A part as operations in order."""

    nodes: tuple[Node, ...]
    """call_function nodes that the outputs need"""
    input: Node
    outputs: tuple[Node, ...]
    tensors: Mapping[Node, Tensor]
    """parameters, buffers and constants, by their placeholder"""
    names: Mapping[Node, str]
    """of parameters and buffers in the model"""
    layers: Mapping[str, PackedLayer]
    symbols: Mapping[str, str]
    """what shapes call the sides of the input, in steps, where they vary -> rows, columns"""


def trace(model: Backbone, part: Part, channels: int, size: tuple[int, int], multiple: int, most: int = 0) -> Trace:
    """``part`` of ``model`` for one input (1, channels, *size).

    ``multiple``: 0 for this size only; else sides may be any multiples of it up to ``most`` (0: any), and so must be
    ``size``.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, PackedLayer)}
    whole = part(_with_leaves(model, ""))
    varying: dict[int, Any] = {}
    if multiple:
        _any_multiple(whole)
        most = min(most // multiple or _MOST, _MOST)
        rows, columns = (Dim(name, min=min(_LEAST, most - 1), max=most) for name in ("rows", "columns"))
        varying = {2: rows, 3: columns} if multiple == 1 else {2: multiple * rows, 3: multiple * columns}
    with torch.no_grad():
        found = export(whole, (torch.zeros(1, channels, *size),), dynamic_shapes=(varying,), strict=False)
    placeholders = {node.name: node for node in found.graph.nodes if node.op == "placeholder"}
    signature = found.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = {**names, **signature.inputs_to_lifted_tensor_constants}
    values = {**found.constants, **dict(whole.named_parameters()), **dict(whole.named_buffers())}
    (result,) = (node for node in found.graph.nodes if node.op == "output")
    outputs = tuple(result.args[0])
    return Trace(
        nodes=_needed(outputs),
        input=placeholders[signature.user_inputs[0]],
        outputs=outputs,
        tensors={placeholders[name]: values[key] for name, key in constants.items()},
        names={placeholders[name]: key.removeprefix(PREFIX) for name, key in names.items()},
        layers=layers,
        symbols=_symbols(placeholders[signature.user_inputs[0]]) if multiple else {},
    )


def _symbols(x: Node) -> dict[str, str]:
    """Sides are a multiple times a symbol."""
    sides = [set(side.node.expr.free_symbols) for side in x.meta["val"].shape[2:]]
    return {str(symbol): name for (symbol,), name in zip(sides, ("rows", "columns"), strict=True)}


def _any_multiple(whole: nn.Module) -> None:
    """Let diffusers' UNet upsample to the size of the skip connection always, not only where a level has an odd side.

    It compares sides with 2 ** num_upsamplers; none is a multiple of so large a number.
    """
    for module in whole.modules():
        if isinstance(getattr(module, "num_upsamplers", None), int):
            setattr(module, "num_upsamplers", _MOST.bit_length() + 8)  # noqa: B010


def _with_leaves(module: nn.Module, name: str) -> Any:
    """A copy of the module tree that shares all tensors, packed layers replaced."""
    if isinstance(module, PackedLayer):
        return _Leaf(name, module)
    twin = copy.copy(module)
    twin._modules = {
        key: None if child is None else _with_leaves(child, f"{name}.{key}" if name else key)
        for key, child in module._modules.items()
    }
    return twin


def _needed(outputs: Sequence[Node]) -> tuple[Node, ...]:
    """In order of execution."""
    wanted, waiting = set[Node](), list(outputs)
    while waiting:
        node = waiting.pop()
        if node not in wanted:
            wanted.add(node)
            waiting += node.all_input_nodes
    return tuple(node for node in outputs[0].graph.nodes if node in wanted and node.op == "call_function")
