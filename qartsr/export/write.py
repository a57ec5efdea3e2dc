"""A traced part of a packed model, written as an ONNX graph of standard operations."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from qartsr.export.graph import Graph, Ref
from qartsr.export.layers import write_float, write_layer
from qartsr.export.norms import Norm, NormWriter
from qartsr.export.ops import ATTENTION, BY_RANK, WRITERS, write_attention
from qartsr.export.polyphase import fuses, write_upsampled
from qartsr.export.trace import Trace
from qartsr.layer import Conv2dOp, LinearOp
from qartsr.packing import PackedLayer

aten: Any = torch.ops.aten
_LAYER = torch.ops.qartsr.layer.default


class Writer:
    """Writes the nodes of one trace. What depends on no input is computed here and stored as a constant."""

    def __init__(self, graph: Graph, trace: Trace, norm: NormWriter) -> None:
        self._graph, self._trace, self._norm = graph, trace, norm
        self._values: dict[Node, Any] = dict(trace.tensors)

    @torch.no_grad()
    def write(self, x: Ref) -> tuple[Ref, ...]:
        """Append everything, given the value of the traced input; returns the outputs."""
        self._values[self._trace.input] = x
        for node in self._trace.nodes:
            self._values[node] = self._constant(node) if self._is_constant(node) else self._node(node)
        return tuple(self._graph.ref(self._values[node]) for node in self._trace.outputs)

    def _is_constant(self, node: Node) -> bool:
        return not any(_varies(self._values[each]) for each in node.all_input_nodes)

    def _constant(self, node: Node) -> Any:
        args, kwargs = self._arguments(node)
        if node.target is _LAYER:
            return self._trace.layers[args[1]](args[0])
        assert callable(node.target)  # only these are in a trace
        return node.target(*args, **kwargs)

    def _arguments(self, node: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        def value(each: Node) -> Any:
            return self._values[each]

        args: Any = torch.fx.map_arg(node.args, value)
        kwargs: Any = torch.fx.map_arg(node.kwargs, value)
        return args, kwargs

    def _node(self, node: Node) -> Any:
        args, kwargs = self._arguments(node)
        graph, target = self._graph, node.target
        if target is _LAYER:
            layer, before = self._trace.layers[args[1]], node.args[0]
            if isinstance(before, Node) and self._joins(before, layer):
                return write_upsampled(graph, args[1], layer, self._values[before.all_input_nodes[0]])
            return write_layer(graph, args[1], layer, graph.ref(args[0]), len(_shape(before)))
        if target is aten.group_norm.default:
            return self._norm(graph, self._norm_of(node, *args), args[0])
        if target is aten.conv2d.default:
            return write_float(graph, self._owner(node), _conv_op(*args[3:]), *_three(args))
        if target is aten.linear.default:
            return write_float(graph, self._owner(node), LinearOp(), *_three(args))
        if target is ATTENTION:
            return write_attention(graph, *args, **kwargs, width=_shape(node.args[0])[-1])
        if target in BY_RANK:
            return BY_RANK[target](graph, *args, **kwargs, rank=len(_shape(node.args[0])))
        if target not in WRITERS:
            raise NotImplementedError(f"{target} has no ONNX form here")
        return WRITERS[target](graph, *args, **_only_known(kwargs))

    def _joins(self, node: Node, layer: PackedLayer) -> bool:
        """Whether ``node`` doubles both sides for ``layer`` alone; nobody uses what was written of it then."""
        doubles = node.target is aten.upsample_nearest2d.vec and tuple(node.args[1:]) == (None, [2.0, 2.0])
        return doubles and len(node.users) == 1 and fuses(layer)

    def _owner(self, node: Node) -> str:
        """The name of the module whose weight the operation uses."""
        weight = node.args[1 if node.target is not aten.group_norm.default else 2]
        assert isinstance(weight, Node)
        return self._trace.names[weight].removesuffix(".weight")

    def _named(self, side: Any) -> str:
        """A size as an expression of the sides of the input, ``rows`` and ``columns``."""
        symbols = self._trace.symbols
        return re.sub(r"[a-z]+\d+", lambda found: symbols[found[0]], str(side))

    def _norm_of(self, node: Node, x: Ref, groups: int, weight: Tensor, bias: Tensor, eps: float, *_: bool) -> Norm:
        shape = _shape(node.args[0])
        sides = tuple(side if isinstance(side, int) else self._named(side) for side in shape[2:])
        return Norm(self._owner(node), groups, int(shape[1]), sides, weight, bias, eps)


def _varies(value: Any) -> bool:
    return isinstance(value, Ref) or (isinstance(value, tuple) and any(_varies(each) for each in value))


def _shape(node: Any) -> tuple[Any, ...]:
    return tuple(node.meta["val"].shape)


def _three(args: tuple[Any, ...]) -> tuple[Any, Tensor, Tensor | None]:
    """Input, weight and bias."""
    return args[0], args[1], args[2] if len(args) > 2 else None


def _conv_op(stride: Any = (1, 1), padding: Any = (0, 0), dilation: Any = (1, 1), groups: int = 1) -> Conv2dOp:
    if groups != 1 or isinstance(padding, str):
        raise NotImplementedError("a grouped convolution")
    return Conv2dOp(tuple(stride), tuple(padding), tuple(dilation))


def _only_known(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Memory formats, types and devices mean nothing to a graph."""
    return {name: value for name, value in kwargs.items() if name not in ("memory_format", "dtype", "device")}
