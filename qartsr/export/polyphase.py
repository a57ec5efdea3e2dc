"""Nearest x2 upsampling and a 3x3 convolution as four 2x2 convolutions before it: 2.25 times fewer multiplications.

Row 2i + a of the result sees rows 2i + a - 1 .. 2i + a + 1 of the upsampled input, which are rows i - 1, i, i (a = 0)
or i, i, i + 1 (a = 1) of the input: taps that meet the same row are added. Codes are integers, so their sums are exact;
they fit int8 up to 5 bits. The input is quantized before it is four times as large, and never stored that large.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

from qartsr.export.graph import Graph, Operand, Ref
from qartsr.export.layers import channel_steps, input_of, quantized, transformed
from qartsr.layer import Conv2dOp
from qartsr.packing import PackedLayer
from qartsr.packing.integer_grid import IntegerGrid, int8_grid
from qartsr.packing.packed_layer import InputAffine, InputGrid, LowRank, PackedTensor
from qartsr.packing.supports import Supports, unsupported_reason
from qartsr.quantizers import Grid

_OP = Conv2dOp((1, 1), (1, 1), (1, 1))
_JOINED = Supports(inputs=(InputGrid, nn.Identity))
_PHASES = tuple(product((0, 1), (0, 1)))


def fuses(layer: PackedLayer) -> bool:
    """Whether the layer is such a convolution and needs none of the corrections that its exact sum would spoil."""
    if layer.op != _OP or layer.spec.shape[2:] != (3, 3) or unsupported_reason(layer, _JOINED):
        return False
    if not isinstance(layer.weight, PackedTensor) or isinstance(layer.transform, InputAffine) or input_of(layer)[2]:
        return False
    grid = _grid(layer, layer.weight)
    sums = (phase(_codes(layer.weight, grid), *each) for each in _PHASES)
    return bool((grid.rest == 0).all()) and all(int(each.abs().max()) <= 127 for each in sums)


def write_upsampled(graph: Graph, name: str, layer: PackedLayer, x: Ref) -> Ref:
    """Append the layer on the upsampled ``x``, for which :func:`fuses` holds."""
    assert isinstance(layer.weight, PackedTensor)  # fuses
    scale, zero, _, levels = input_of(layer)
    by_channel = channel_steps(graph, layer)
    inner = transformed(graph, layer, x, 2, divided=by_channel is None)
    if levels:
        inner = quantized(graph, name, inner, scale, zero, levels, by_channel)
    grid = _grid(layer, layer.weight)
    codes, count = _codes(layer.weight, grid), layer.spec.shape[0]
    steps = graph.constant(grid.scale.expand(count) if grid.scale.dim() == 0 else grid.scale.reshape(count).float())
    zeros, bias = torch.zeros(count, dtype=torch.int8), graph.constant(layer.bias(), f"{name}.bias")
    parts = []
    for each in _PHASES:
        label = f"{name}.phase{each[0]}{each[1]}"
        stored = graph.constant(phase(codes, *each).to(torch.int8), f"{label}.codes")
        weight = graph.node("DequantizeLinear", stored, steps, zeros, axis=0, name=f"{label}.weight")
        y = _conv(graph, inner, weight, each, bias, name=f"{label}.main")
        parts.append(_with_skip(graph, label, layer, each, x, y))
    return graph.node("DepthToSpace", graph.node("Concat", *parts, axis=1), blocksize=2, mode="DCR", name=name)


def phase(weight: Tensor, row: int, column: int) -> Tensor:
    """(O, C, 3, 3) -> (O, C, 2, 2): what rows 2i + ``row`` and columns 2j + ``column`` see."""
    for axis, odd in ((2, row), (3, column)):
        first, second, third = weight.unbind(axis)
        weight = torch.stack([first + second, third] if odd else [first, second + third], axis)
    return weight


def _grid(layer: PackedLayer, weight: PackedTensor) -> IntegerGrid:
    return int8_grid(Grid(weight.grid[0], weight.grid[1], 2**layer.spec.weight_bits - 1))


def _codes(weight: PackedTensor, grid: IntegerGrid) -> Tensor:
    return weight.integers().int() - grid.zero.int()


def _conv(graph: Graph, x: Ref, weight: Operand, phase_: tuple[int, int], *bias: Operand, name: str) -> Ref:
    row, column = phase_
    return graph.node("Conv", x, weight, *bias, pads=[1 - row, 1 - column, row, column], name=name)


def _with_skip(graph: Graph, name: str, layer: PackedLayer, phase_: tuple[int, int], x: Ref, y: Ref) -> Ref:
    skip = layer.skip
    if not isinstance(skip, LowRank):
        return y
    low = _conv(graph, x, graph.constant(phase(skip.right, *phase_)), phase_, name=f"{name}.skip.low")
    high = graph.node("Conv", low, graph.constant(skip.left[:, :, None, None]), name=f"{name}.skip")
    return graph.node("Add", y, high)
