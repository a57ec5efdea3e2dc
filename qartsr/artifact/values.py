"""Constants of a graph, computed from the tensors of a package: what is in the file need not be in its graphs again.

A recipe is a base and changes, joined by ``|``:

    tensor NAME             the tensor NAME, fp32
    codes LAYER             weight codes - zero point of the output channel, int8
    odd LAYER               2 * weight codes - levels, int8
    scale LAYER             step of the weight grid, of every output channel
    bias LAYER REST         bias + REST * sum of the weights of an output channel (fp64), fp32
    sums LAYER REST         REST * sum of the weights of an output channel (fp64), fp32
    weight LAYER            decoded weights, fp32
    left LAYER, right LAYER L1 and L2 of a branch with blocks, written out as one pair of matrices
    waves MOST BASE WIDTH   the places of a transformer's patches along one side, see :func:`waves`

    turned                  matrix transposed
    negative                times -1
    phase A B               (O, C, 3, 3) -> (O, C, 2, 2), see :mod:`qartsr.export.polyphase`
    heads H                 (1, N, H d) -> (1, H, N, d)
    shape A,B,...           reshaped
    part K N                the K-th of N equal parts of the last dimension, from 0
    more                    plus 1
    half                    divided by 2
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qartsr.artifact.bits import unpack
from qartsr.artifact.spec import LayerSpec

Array = NDArray[Any]


class Values:
    """Constants by recipe, of the layers ``specs`` and the ``tensors`` of a package, fp32 and uint8, by name."""

    def __init__(self, specs: Mapping[str, LayerSpec], tensors: Mapping[str, Array]) -> None:
        self._specs, self._tensors = specs, tensors
        self._bases: dict[str, Callable[..., Array]] = {
            "tensor": lambda name: tensors[name],
            "codes": self._centred,
            "odd": self._odd,
            "scale": self._scale,
            "bias": self._bias,
            "sums": self._sums,
            "weight": self._weight,
            "left": self._left,
            "right": self._right,
            "waves": lambda *numbers: waves(*map(int, numbers)),
        }

    def __call__(self, recipe: str) -> Array:
        """The constant. Raises ValueError, KeyError or TypeError for what is no recipe."""
        base, *changes = recipe.split("|")
        kind, *words = base.split(" ")
        value = self._bases[kind](*words)
        for change in changes:
            kind, *words = change.split(" ")
            value = CHANGES[kind](value, *words)
        return value

    def _codes(self, layer: str) -> Array:
        spec = self._specs[layer]
        stream = self._tensors[f"{layer}.weight.codes"]
        return unpack(stream, spec.weight_bits, math.prod(spec.shape)).reshape(spec.shape)

    def _centred(self, layer: str) -> Array:
        grid, levels = self._tensors[f"{layer}.weight.grid"].astype(np.float64), 2 ** self._specs[layer].weight_bits - 1
        zero = np.rint(-grid[1] / grid[0]).clip(max(0, levels - 127), min(128, levels))
        return (self._codes(layer) - zero.astype(np.int16)).astype(np.int8)

    def _odd(self, layer: str) -> Array:
        return (2 * self._codes(layer).astype(np.int16) - (2 ** self._specs[layer].weight_bits - 1)).astype(np.int8)

    def _scale(self, layer: str) -> Array:
        scale = self._tensors[f"{layer}.weight.grid"][0]
        return np.ascontiguousarray(np.broadcast_to(scale.reshape(-1), (self._specs[layer].shape[0],)))

    def _weight(self, layer: str) -> Array:
        spec = self._specs[layer]
        if not spec.weight_bits:
            return self._tensors[f"{layer}.weight.value"]
        grid = self._tensors[f"{layer}.weight.grid"]
        if spec.weight_groups > 1:
            grid = np.repeat(grid, spec.shape[1] // spec.weight_groups, axis=2)
        return _decoded(self._codes(layer), grid)

    def _bias(self, layer: str, rest: str) -> Array:
        spec = self._specs[layer]
        if spec.bias_bits:
            codes = unpack(self._tensors[f"{layer}.bias.codes"], spec.bias_bits, spec.shape[0])
            bias = _decoded(codes, self._tensors[f"{layer}.bias.grid"])
        else:
            bias = self._tensors[f"{layer}.bias.value"]
        return (bias.astype(np.float64) + self._shift(layer, rest)).astype(np.float32) if float(rest) else bias

    def _sums(self, layer: str, rest: str) -> Array:
        return self._shift(layer, rest).astype(np.float32)

    def _shift(self, layer: str, rest: str) -> Array:
        sums = self._weight(layer).astype(np.float64).reshape(self._specs[layer].shape[0], -1).sum(1)
        return float(rest) * sums

    def _left(self, layer: str) -> Array:
        rows, columns = self._specs[layer].blocks
        blocks = left_of_blocks(self._tensors[f"{layer}.skip.block_left"], rows * columns)
        return np.concatenate([self._tensors[f"{layer}.skip.left"], blocks], 1) if self._specs[layer].rank else blocks

    def _right(self, layer: str) -> Array:
        blocks = right_of_blocks(self._tensors[f"{layer}.skip.block_right"], self._specs[layer].blocks[1])
        return np.concatenate([self._tensors[f"{layer}.skip.right"], blocks], 0) if self._specs[layer].rank else blocks


def _decoded(codes: Array, grid: Array) -> Array:
    """Multiplication and addition stay two operations, each rounded to fp32."""
    found: Array = codes.astype(np.float32) * grid[0]
    found += grid[1]
    return found


_BASE = 10_000.0
"""Of the frequencies of places."""
_LARGEST = 1 << 24
"""Entries of a table of places, twice: SD3.5-medium's is 384 x 1,536."""


def waves(most: int, base: int, width: int) -> Array:
    """(most, width / 2) sines, then cosines, of ``most`` places along one side of SD3's pictures, fp32 of fp64.

    A place is one of ``base`` units that the side is long, the embedding of a patch ``width`` wide, half for each side.
    Raises ValueError for more than any model has.
    """
    if not 0 < most * width <= _LARGEST:
        raise ValueError(f"{most} places of {width} are no table")
    place, quarter = np.arange(most) * base / most, width // 4
    angles = place[:, None] / _BASE ** (np.arange(quarter) / quarter)
    found: Array = np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)
    return found


def left_of_blocks(blocks: Array, count: int) -> Array:
    """Left vectors (O, Q) of blocks in Q columns, ``count`` = Q P in all -> (O, Q P), column q P + p block (p, q)'s."""
    outputs, columns = blocks.shape
    rows = count // columns
    found, every = np.zeros((outputs, columns, rows), np.float32), np.arange(outputs)
    found[every, :, every // (outputs // rows)] = blocks
    return found.reshape(outputs, count)


def right_of_blocks(blocks: Array, columns: int) -> Array:
    """Right vectors (Q P, C / Q, ...) of blocks in Q ``columns`` -> (Q P, C, ...), row q P + p block (p, q)'s."""
    count, width, *tail = blocks.shape
    found = np.zeros((columns, count // columns, columns, width, *tail), np.float32)
    for column, each in enumerate(blocks.reshape(columns, -1, width, *tail)):
        found[column, :, column] = each
    return found.reshape(count, columns * width, *tail)


def phase(weight: Array, row: str, column: str) -> Array:
    """What rows 2i + ``row`` and columns 2j + ``column`` see: taps that meet the same value are added."""
    for axis, odd in ((2, int(row)), (3, int(column))):
        first, second, third = (weight.take(place, axis) for place in range(3))
        weight = np.stack([first + second, third] if odd else [first, second + third], axis)
    return weight


def _heads(value: Array, count: str) -> Array:
    return value.reshape(1, value.shape[1], int(count), -1).transpose(0, 2, 1, 3)


CHANGES: Mapping[str, Callable[..., Array]] = {
    "turned": lambda value: value.T,
    "negative": lambda value: -value,
    "phase": phase,
    "heads": _heads,
    "shape": lambda value, sides: value.reshape([int(side) for side in sides.split(",")]),
    "part": lambda value, place, count: np.split(value, int(count), -1)[int(place)],
    "more": lambda value: value + np.float32(1),
    "half": lambda value: value / np.float32(2),
}
