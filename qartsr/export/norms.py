"""GroupNorm in a graph, in three ways: by itself, with moments observed, with moments imposed.

An image in tiles shares the moments of every GroupNorm (:mod:`qartsr.upscale.shared_norms`); a graph has no modules to
hook into, so what is observed is an output and what is imposed is an input, by the norm's name.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from qartsr.export.graph import Graph, Operand, Ref


class Norm(NamedTuple):
    """One GroupNorm and the shape of its input, (1, channels, *sides)."""

    name: str
    groups: int
    channels: int
    sides: tuple[int | str, ...]
    """what follows the channels; names where it varies"""
    weight: Tensor
    bias: Tensor
    eps: float


class NormWriter(Protocol):
    """Writes a norm on a value."""

    def __call__(self, graph: Graph, norm: Norm, x: Ref) -> Ref:
        """Append its nodes."""
        ...


def plain(graph: Graph, norm: Norm, x: Ref) -> Ref:
    """The norm by the moments of its own input."""
    return graph.node(
        "GroupNormalization", x, norm.weight, norm.bias, name=norm.name, num_groups=norm.groups, epsilon=norm.eps
    )


def imposed(graph: Graph, norm: Norm, x: Ref) -> Ref:
    """Gain and shift per channel, (2, C), are the input ``NAME.affine``."""
    affine = graph.input(f"{norm.name}.affine", (2, norm.channels))
    gain, shift = (_channels(graph, norm, half) for half in graph.split("Split", 2, affine, axis=0, num_outputs=2))
    return graph.node("Add", graph.node("Mul", x, gain), shift, name=norm.name)


def observed(graph: Graph, norm: Norm, x: Ref) -> Ref:
    """Moments are the output ``NAME.moments``; the norm uses its own, or those given.

    Inputs: ``NAME.weights`` (*sides, 2), two sets that each sum to 1: equal weights, and those to observe with.
    ``NAME.given`` (groups, 2), mean and mean square, used in the share ``NAME.fixed`` (1, 1): 0 or 1.
    Output: (groups, 2) with the second weights.
    """
    weights = graph.node("Reshape", graph.input(f"{norm.name}.weights", (*norm.sides, 2)), _shape(-1, 2))
    given = graph.input(f"{norm.name}.given", (norm.groups, 2))
    fixed = graph.input(f"{norm.name}.fixed", (1, 1))
    grouped = graph.node("Reshape", x, _shape(norm.groups, norm.channels // norm.groups, -1))
    square = graph.node("Mul", grouped, grouped)
    means, squares = (_weighted(graph, each, weights) for each in (grouped, square))
    (own_mean, seen_mean), (own_square, seen_square) = (
        graph.split("Split", 2, each, axis=1, num_outputs=2) for each in (means, squares)
    )
    graph.output(f"{norm.name}.moments", graph.node("Concat", seen_mean, seen_square, axis=1), (norm.groups, 2))
    own = graph.node("Concat", own_mean, own_square, axis=1)
    used = graph.node("Add", own, graph.node("Mul", fixed, graph.node("Sub", given, own)))
    mean, square = graph.split("Split", 2, used, axis=1, num_outputs=2)
    return _normalised(graph, norm, x, mean, square)


def _weighted(graph: Graph, x: Ref, weights: Ref) -> Ref:
    """(groups, channels per group, positions) -> (groups, 2)."""
    mean = graph.node("ReduceMean", x, np.array([1], np.int64), keepdims=0)
    return graph.node("MatMul", mean, weights)


def _normalised(graph: Graph, norm: Norm, x: Ref, mean: Ref, square: Ref) -> Ref:
    """``x`` by (groups, 1) moments: one gain and one shift per channel."""
    variance = graph.node("Relu", graph.node("Sub", square, graph.node("Mul", mean, mean)))
    deviation = graph.node("Sqrt", graph.node("Add", variance, norm.eps))
    width = norm.channels // norm.groups
    gain = graph.node("Div", norm.weight.reshape(norm.groups, width), deviation)
    shift = graph.node("Sub", norm.bias.reshape(norm.groups, width), graph.node("Mul", mean, gain))
    scaled = graph.node("Mul", x, _channels(graph, norm, gain))
    return graph.node("Add", scaled, _channels(graph, norm, shift), name=norm.name)


def _channels(graph: Graph, norm: Norm, value: Ref) -> Ref:
    return graph.node("Reshape", value, _shape(1, norm.channels, *(1 for _ in norm.sides)))


def _shape(*sides: int) -> Operand:
    return np.array(sides, np.int64)
