"""A packed layer as standard nodes: integer weights, DequantizeLinear, and Clip + QuantizeLinear + DequantizeLinear.

Where sides vary as the graph runs, Clip follows QuantizeLinear, and a convolution's x is quantized in steps by channel
instead of being divided by phi (:func:`channel_steps`).

    x^ = Q(v),  v = (x - delta) / phi - rest,  Q(v) = round(clip(v, -zero scale, (levels - zero) scale) / scale) scale
    y  = op(x^, W^) + (b + rest sum W) + r sum(x^) + L1 op(x, L2)

W^ are signed integers times one scale per output channel (zero point 0), whatever the bits: int8 in the file. ``rest``
is what an integer zero point cannot say of the input grid's offset, ``r`` (per output channel) of the weight grid's;
both are exact corrections, and are left out where they are 0. A weight grid with 0 in its middle, between two codes, is
one of odd numbers of half its step, and has no ``r``. Sums run over the window of the operation. Weights with
several grids in one output channel are decoded: standard graphs have no such convolution.

A layer whose delta and rest are 0 is padded by the convolution itself, since 0 is a code; else x is padded first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from qartsr.errors import QartsrError
from qartsr.export.graph import Graph, Operand, Ref
from qartsr.export.tokens import branch, rotated, token_step, unit_grid
from qartsr.layer import Conv2dOp, LayerOp
from qartsr.packing import PackedLayer
from qartsr.packing.integer_grid import code_grid, int8_grid
from qartsr.packing.packed_layer import (
    FloatTensor,
    Hierarchical,
    InputAffine,
    InputGrid,
    InputRotation,
    InputScale,
    LowRank,
    NoLowRank,
    PackedTensor,
)
from qartsr.packing.supports import Supports, unsupported_reason
from qartsr.quantizers import Grid, TokenGaussian

_GRAPHS = Supports(
    weights=(PackedTensor, FloatTensor),
    inputs=(InputGrid, nn.Identity, TokenGaussian),
    transforms=(nn.Identity, InputScale, InputAffine, InputRotation),
    branches=(NoLowRank, LowRank, Hierarchical),
    groups=True,
)
"""What standard graphs express; groups of weights, and weights in floating point, as numbers."""


def inexpressible(layer: PackedLayer) -> str | None:
    """Why no standard graph expresses ``layer``, a clause about it; None: one does."""
    return unsupported_reason(layer, _GRAPHS)


_ODD = 127
"""Levels whose codes, doubled and made odd, fit int8."""
_ROUNDING = 1e-5
"""How many steps an offset in fp32 may be from the one it means."""


class _Weight(NamedTuple):
    """A weight as the graph has it."""

    value: Ref
    rest: Tensor
    """(O,) what is to be added to every weight of an output channel; 0: nothing"""


class _Op(NamedTuple):
    """An operation on values of the graph; weights come in torch's layout, biases as (O,)."""

    apply: Callable[[Operand, Operand, Tensor | None, bool, str], Ref]
    """(x, weight, bias, padded, name) -> y; ``padded``: x already is"""
    weight: Callable[[Tensor], Tensor]
    """from torch's layout to the graph's"""
    axis: int
    """of the output channels of a weight, in the graph's layout"""
    tail: int
    """dimensions of a value after its channels"""


def write_layer(graph: Graph, name: str, layer: PackedLayer, x: Ref, rank: int) -> Ref:
    """Append the nodes of ``layer`` on ``x`` of ``rank`` dimensions. Raises QartsrError for a part that has no form."""
    op = _op(graph, layer.op)
    if reason := inexpressible(layer):
        what = f"no standard graph expresses layer {name}: {reason}"
        raise QartsrError(what, "the package", "run it with another engine")
    scale, zero, rest, levels = input_of(layer)
    shifted = isinstance(layer.transform, InputAffine) or rest != 0
    source = _padded(graph, layer.op, x) if shifted else x
    turned = source
    if isinstance(layer.transform, InputRotation):
        turned = rotated(graph, source, layer.transform.order, rank, op.tail)
    by_channel, step = channel_steps(graph, layer), None
    inner = transformed(graph, layer, turned, op.tail, divided=by_channel is None)
    if isinstance(layer.input, TokenGaussian):
        step = token_step(graph, inner, layer.input)
        inner = graph.node("Div", inner, step)
    if rest:
        inner = graph.node("Sub", inner, rest if by_channel is None else _channels(by_channel / scale * rest, op.tail))
    if by_channel is not None and isinstance(layer.transform, InputAffine):  # see channel_steps
        inner = graph.node("Max", inner, _channels(by_channel * -zero, op.tail))
        inner = graph.node("Min", inner, _channels(by_channel * (levels - zero), op.tail))
    if levels:
        inner = quantized(graph, name, inner, scale, zero, levels, by_channel)
    y = _product(graph, name, layer, op, inner, step, shifted)
    rotates = isinstance(layer.skip, LowRank | Hierarchical) and isinstance(layer.skip.reads, InputRotation)
    return _with_skip(graph, name, layer, op, turned if rotates else source, y, shifted)


def _product(graph: Graph, name: str, layer: PackedLayer, op: _Op, inner: Ref, step: Ref | None, shifted: bool) -> Ref:
    """Weight and bias on an input without its ``rest``, in steps of its tokens where they have a ``step``."""
    rest = input_of(layer)[2]
    if step is not None and not _pointwise(layer):  # a window over tokens of several steps has no step
        inner = graph.node("Mul", graph.node("Add", inner, rest), step)
        return op.apply(inner, _numbers(graph, name, layer, op), layer.bias(), shifted, f"{name}.main")
    weight = _weight(graph, name, layer, op)
    bias, shift = layer.bias().double(), rest * layer.weight().double().flatten(1).sum(1) if rest else None
    if shift is not None and step is None:
        bias = bias + shift
    y = op.apply(inner, weight.value, bias.float() if step is None else None, shifted, f"{name}.main")
    if bool((weight.rest != 0).any()):
        ones = op.weight(torch.ones(1, *layer.spec.shape[1:]))
        total = op.apply(inner, ones, None, shifted, f"{name}.sum")
        y = graph.node("Add", y, graph.node("Mul", total, _channels(weight.rest.float(), op.tail)))
    if step is None:
        return y
    if shift is not None:
        y = graph.node("Add", y, graph.constant(_channels(shift.float(), op.tail), f"{name}.sums"))
    return graph.node(
        "Add", graph.node("Mul", y, step), graph.constant(_channels(bias.float(), op.tail), f"{name}.bias")
    )


def _pointwise(layer: PackedLayer) -> bool:
    """Whether every output sees one position of the input."""
    return not isinstance(layer.op, Conv2dOp) or (
        layer.spec.shape[2:] == (1, 1) and layer.op.stride == (1, 1) and layer.op.padding == (0, 0)
    )


def _numbers(graph: Graph, name: str, layer: PackedLayer, op: _Op) -> Ref:
    return graph.constant(op.weight(layer.weight()), f"{name}.weight")


def write_float(graph: Graph, name: str, op: LayerOp, x: Operand, weight: Tensor, bias: Tensor | None) -> Ref:
    """Append a layer that is not quantized: ``weight`` (O, C, ...), ``bias`` (O,)."""
    writer = _op(graph, op)
    return writer.apply(x, writer.weight(weight), bias, False, name)


def _op(graph: Graph, op: LayerOp) -> _Op:
    if isinstance(op, Conv2dOp):
        return _Op(lambda *given: _conv(graph, op, *given), lambda weight: weight, axis=0, tail=2)
    return _Op(lambda *given: _matmul(graph, *given), lambda weight: weight.t(), axis=1, tail=0)


def _conv(graph: Graph, op: Conv2dOp, x: Operand, weight: Operand, bias: Tensor | None, padded: bool, name: str) -> Ref:
    pads = [0] * 4 if padded else [*op.padding, *op.padding]
    extra = [] if bias is None else [graph.constant(bias, f"{name}.bias")]
    attributes: dict[str, Any] = {"strides": list(op.stride), "pads": pads, "dilations": list(op.dilation)}
    return graph.node("Conv", x, weight, *extra, name=name, **attributes)


def _matmul(graph: Graph, x: Operand, weight: Operand, bias: Tensor | None, padded: bool, name: str) -> Ref:
    """The bias is added by subtracting its negative: ONNX Runtime 1.32 makes an invalid node of MatMul + Add here."""
    if bias is None:
        return graph.node("MatMul", x, weight, name=name)
    product = graph.node("MatMul", x, weight, name=f"{name}.product")
    return graph.node("Sub", product, graph.constant(-bias, f"{name}.bias"), name=name)


def _channels(value: Tensor, tail: int) -> Tensor:
    return value.reshape(-1, *(1,) * tail)


def _padded(graph: Graph, op: LayerOp, x: Ref) -> Ref:
    if not isinstance(op, Conv2dOp) or op.padding == (0, 0):
        return x
    rows, columns = op.padding
    return graph.node("Pad", x, np.array([0, 0, rows, columns] * 2, np.int64))


def input_of(layer: PackedLayer) -> tuple[float, int, float, int]:
    """Scale, zero, rest and levels of the input's grid, of tokens in their own steps; 0 levels: not quantized."""
    if isinstance(layer.input, TokenGaussian):
        own = unit_grid(layer.input)
    elif isinstance(layer.input, InputGrid):
        own = Grid(layer.input.grid[0], layer.input.grid[1], 2**layer.spec.input_bits - 1)
    else:
        return 1.0, 0, 0.0, 0
    grid = code_grid(own)
    return float(grid.scale), int(grid.zero), float(grid.rest), grid.levels


def channel_steps(graph: Graph, layer: PackedLayer) -> Tensor | None:
    """(C,) phi times the step of the codes, where a graph quantizes by channel; None: it divides by phi before.

    So it does for a convolution where its size varies as it runs: OpenVINO 2026.4's CPU plugin takes a division by
    channel and QuantizeLinear for one operation there and, on CPUs without VNNI, computes another; so it does with a
    subtraction by channel from codes of 8 bits that begin or end at 0, unless x is cut to its range in between.
    """
    scale, _, _, levels = input_of(layer)
    if not graph.runs_varying or not isinstance(layer.op, Conv2dOp) or not levels:
        return None
    if not isinstance(layer.transform, InputAffine | InputScale) or not isinstance(layer.input, InputGrid):
        return None
    return (layer.transform.phi.flatten().double() * scale).float()


def transformed(graph: Graph, layer: PackedLayer, x: Ref, tail: int, divided: bool = True) -> Ref:
    """(x - delta) / phi, or without ``divided`` x - delta; ``tail`` dimensions follow the channels."""
    transform = layer.transform
    if isinstance(transform, InputAffine):
        x = graph.node("Sub", x, _channels(transform.delta, tail))
    if divided and isinstance(transform, InputAffine | InputScale):
        x = graph.node("Div", x, _channels(transform.phi, tail))
    return x


def quantized(
    graph: Graph, name: str, x: Ref, scale: float, zero: int, levels: int, by_channel: Tensor | None = None
) -> Ref:
    """``x`` on the grid; with ``by_channel`` (C,), phi times its step, ``x`` is not divided by phi yet. Codes are int8.

    Their zero point is 0 where ``code - zero`` fits, else codes are ``code - 128``.

    In a graph of varying size the codes are clipped, not ``x``, which is the same: OpenVINO 2026.4 takes a division by
    channel, Clip and QuantizeLinear for one operation there, and computes another.
    """
    fits = zero <= 128 and levels - zero <= 127
    point = np.array(0 if fits else zero - 128, np.int8)
    step, ends = np.array(scale, np.float32), (-zero, levels - zero)
    if not graph.varies:
        x = graph.node("Clip", x, *(end * step for end in ends))
    if by_channel is None:
        codes = graph.node("QuantizeLinear", x, step, point, name=f"{name}.codes")
    else:
        points, steps = np.full(len(by_channel), point), graph.constant(by_channel, f"{name}.steps")
        codes = graph.node("QuantizeLinear", x, steps, points, name=f"{name}.codes", axis=1)
    if graph.varies:
        codes = graph.node("Clip", codes, *(np.array(end + int(point), np.int8) for end in ends))
    return graph.node("DequantizeLinear", codes, step, point, name=f"{name}.input")


def _weight(graph: Graph, name: str, layer: PackedLayer, op: _Op) -> _Weight:
    packed, none = layer.weight, torch.zeros(layer.spec.shape[0], dtype=torch.float64)
    if isinstance(packed, FloatTensor) or layer.spec.weight_groups > 1:
        return _Weight(_numbers(graph, name, layer, op), none)
    own = Grid(packed.grid[0], packed.grid[1], 2**layer.spec.weight_bits - 1)
    grid = int8_grid(own)
    codes, scale, rest = packed.integers().int() - grid.zero.int(), grid.scale, grid.rest
    if own.levels <= _ODD and _centred(own):
        codes, scale, rest = 2 * packed.integers().int() - own.levels, scale / 2, 0 * rest
    codes, count = op.weight(codes.to(torch.int8)), layer.spec.shape[0]
    scale, rest = (each.expand(count) if each.dim() == 0 else each.reshape(count) for each in (scale, rest))
    stored = graph.constant(codes, f"{name}.weight.codes")
    value = graph.node(
        "DequantizeLinear",
        stored,
        graph.constant(scale.float(), f"{name}.weight.scale"),
        np.zeros(count, np.int8),
        name=f"{name}.weight",
        axis=op.axis,
    )
    return _Weight(value, rest)


def _centred(grid: Grid) -> bool:
    """Whether 0 lies in the middle of the grid, half-way between two codes."""
    return bool(((grid.offset.double() / grid.scale.double() + grid.levels / 2).abs() < _ROUNDING).all())


def _with_skip(graph: Graph, name: str, layer: PackedLayer, op: _Op, x: Ref, y: Ref, padded: bool) -> Ref:
    skip = layer.skip
    if not isinstance(skip, LowRank | Hierarchical):
        return y
    left, right = branch(skip)
    first = graph.constant(op.weight(right), f"{name}.skip.right")
    low = op.apply(x, first, None, padded, f"{name}.skip.low")
    kind, last = ("Conv", left[:, :, None, None]) if op.tail else ("MatMul", left.t())
    high = graph.node(kind, low, graph.constant(last, f"{name}.skip.left"), name=f"{name}.skip")
    return graph.node("Add", y, high, name=name)
