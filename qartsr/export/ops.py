"""From torch's operations to ONNX nodes: one small function each, in one table.

Every function takes the graph and the operation's arguments: values of the graph, tensors that are constant, plain
numbers, and for sizes that vary (1,) int64 values of the graph. What cannot be expressed is refused.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from qartsr.export.graph import Graph, Operand, Ref

Size = int | Ref
_LARGE = 2**31 - 1
aten: Any = torch.ops.aten


def _binary(kind: str) -> Callable[..., Ref]:
    def write(graph: Graph, left: Operand, right: Operand, alpha: float = 1) -> Ref:
        return graph.node(kind, left, right if alpha == 1 else graph.node("Mul", right, float(alpha)))

    return write


def _unary(kind: str) -> Callable[..., Ref]:
    def write(graph: Graph, x: Ref) -> Ref:
        return graph.node(kind, x)

    return write


def _same(graph: Graph, x: Ref, *ignored: Any, **options: Any) -> Ref:
    return x


def _silu(graph: Graph, x: Ref) -> Ref:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


def _gelu(graph: Graph, x: Ref, approximate: str = "none") -> Ref:
    return graph.node("Gelu", x, approximate=approximate)


def _layer_norm(
    graph: Graph,
    x: Ref,
    shape: Sequence[int],
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
    *unused: bool,
) -> Ref:
    scale = graph.constant(np.ones(tuple(shape), np.float32), shared=True) if weight is None else weight
    shift = () if bias is None else (bias,)
    return graph.node("LayerNormalization", x, scale, *shift, axis=-len(shape), epsilon=eps)


def _power(graph: Graph, x: Ref, exponent: float) -> Ref:
    return graph.node("Mul", x, x) if exponent == 2 else graph.node("Pow", x, float(exponent))


def _mean(graph: Graph, x: Ref, axes: Sequence[int], keep: bool = False) -> Ref:
    return graph.node("ReduceMean", x, _axes(*axes), keepdims=int(keep))


def _rsqrt(graph: Graph, x: Ref) -> Ref:
    return graph.node("Reciprocal", graph.node("Sqrt", x))


def _einsum(graph: Graph, equation: str, parts: Sequence[Ref]) -> Ref:
    """A permutation of axes, no more."""
    before, _, after = equation.replace(" ", "").partition("->")
    if len(parts) != 1 or sorted(before) != sorted(after) or len(set(before)) != len(before):
        raise NotImplementedError(f"einsum {equation}")
    return graph.node("Transpose", parts[0], perm=[before.index(axis) for axis in after])


def _transpose(graph: Graph, x: Ref, first: int, second: int, *, rank: int) -> Ref:
    order = list(range(rank))
    order[first], order[second] = order[second], order[first]
    return graph.node("Transpose", x, perm=order)


def _permute(graph: Graph, x: Ref, order: Sequence[int], *, rank: int) -> Ref:
    return graph.node("Transpose", x, perm=[axis % rank for axis in order])


def _reshape(graph: Graph, x: Ref, shape: Sequence[Size]) -> Ref:
    return graph.node("Reshape", x, graph.shape(*shape))


def _expand(graph: Graph, x: Ref, shape: Sequence[Size]) -> Ref:
    return graph.node("Expand", x, graph.shape(*(1 if each == -1 else each for each in shape)))


def _flatten(graph: Graph, x: Ref, first: int = 0, last: int = -1, *, rank: int) -> Ref:
    """Axes before stay as they are; behind them at most one may follow what is joined."""
    first, last = first % rank, last % rank
    if last < rank - 1 and first:
        raise NotImplementedError("flattening axes in the middle")
    behind = [graph.node("Shape", x, start=axis, end=axis + 1) for axis in range(last + 1, rank)]
    return graph.node("Reshape", x, graph.shape(*[0] * first, -1, *behind))


def _unsqueeze(graph: Graph, x: Ref, axis: int) -> Ref:
    return graph.node("Unsqueeze", x, _axes(axis))


def _slice(
    graph: Graph, x: Ref, axis: int = 0, start: Size | None = None, stop: Size | None = None, step: int = 1
) -> Ref:
    first, last = graph.shape(start or 0), graph.shape(_LARGE if stop is None else _bounded(stop))
    return graph.node("Slice", x, first, last, _axes(axis), _axes(step))


def _bounded(stop: Size) -> Size:
    return stop if isinstance(stop, Ref) else min(stop, _LARGE)


def _cat(graph: Graph, parts: Sequence[Operand], axis: int = 0) -> Ref:
    return graph.node("Concat", *parts, axis=axis)


def _chunk(graph: Graph, x: Ref, count: int, axis: int = 0) -> tuple[Ref, ...]:
    return graph.split("Split", count, x, axis=axis, num_outputs=count)


def _pad(
    graph: Graph, x: Ref, pads: Sequence[int], mode: str = "constant", value: float | None = None, *, rank: int
) -> Ref:
    if mode != "constant":
        raise NotImplementedError(f"padding {mode}")
    before, after = list(pads[0::2]), list(pads[1::2])  # torch begins with the last axis
    missing = [0] * (rank - len(before))
    every = np.array([*missing, *before[::-1], *missing, *after[::-1]], np.int64)
    return graph.node("Pad", x, every, float(value or 0))


def _clamp(graph: Graph, x: Ref, least: float, most: float) -> Ref:
    return graph.node("Clip", x, float(least), float(most))


def _attention(graph: Graph, query: Ref, key: Operand, value: Operand, *more: Any, width: int, **options: Any) -> Ref:
    """Softmax(Q K^T / sqrt(width)) V. Half of the factor goes to each side, as torch does it.

    OpenVINO 2026.4 fuses the other order, one factor on the product, into a node that gave NaN in bf16.
    """
    if any(each is not None and each is not False and each != 0.0 for each in (*more, *options.values())):
        raise NotImplementedError("attention with a mask or dropout")
    factor = width**-0.25
    turned = graph.node("Transpose", key, perm=[0, 1, 3, 2])
    scores = graph.node("MatMul", graph.node("Mul", query, factor), graph.node("Mul", turned, factor))
    return graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)


def _upsample(graph: Graph, x: Ref, size: Sequence[Size] | None, factors: Sequence[float] | None) -> Ref:
    how: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if size is None:
        return graph.node("Resize", x, _NOTHING, np.array([1, 1, *(factors or ())], np.float32), **how)
    return graph.node("Resize", x, _NOTHING, _NOTHING, graph.shape(*size), axes=[2, 3], **how)


def _size(graph: Graph, x: Ref, axis: int) -> Ref:
    return graph.node("Shape", x, start=axis, end=axis + 1)


def _integer(kind: str) -> Callable[..., Ref]:
    def write(graph: Graph, left: Size, right: Size) -> Ref:
        return graph.node(kind, graph.shape(left), graph.shape(right))

    return write


def _axes(*axes: int) -> Operand:
    return np.array(axes, np.int64)


_NOTHING = np.array([], np.float32)

WRITERS: dict[Any, Callable[..., Any]] = {
    aten.add.Tensor: _binary("Add"),
    aten.sub.Tensor: _binary("Sub"),
    aten.mul.Tensor: _binary("Mul"),
    aten.div.Tensor: _binary("Div"),
    aten.exp.default: _unary("Exp"),
    aten.sigmoid.default: _unary("Sigmoid"),
    aten.silu.default: _silu,
    aten.gelu.default: _gelu,
    aten.clamp.default: _clamp,
    aten.pow.Tensor_Scalar: _power,
    aten.mean.dim: _mean,
    aten.rsqrt.default: _rsqrt,
    aten.einsum.default: _einsum,
    aten.layer_norm.default: _layer_norm,
    aten.reshape.default: _reshape,
    aten.view.default: _reshape,
    aten.expand.default: _expand,
    aten.unsqueeze.default: _unsqueeze,
    aten.slice.Tensor: _slice,
    aten.cat.default: _cat,
    aten.chunk.default: _chunk,
    aten.upsample_nearest2d.vec: _upsample,
    aten.sym_size.int: _size,
    aten.dropout.default: _same,
    aten.contiguous.default: _same,
    aten.clone.default: _same,
    aten.to.dtype: _same,
    operator.getitem: lambda graph, parts, index: parts[index],
    operator.mul: _integer("Mul"),
    operator.add: _integer("Add"),
    operator.sub: _integer("Sub"),
    operator.floordiv: _integer("Div"),
}
"""All computation is in fp32, so a change of type is none; sizes are positive, so division is the integer kind."""

BY_RANK: dict[Any, Callable[..., Any]] = {
    aten.transpose.int: _transpose,
    aten.permute.default: _permute,
    aten.pad.default: _pad,
    aten.flatten.using_ints: _flatten,
}
"""Those that must know how many dimensions their first argument has: ``rank``."""

ATTENTION = aten.scaled_dot_product_attention.default
write_attention = _attention
