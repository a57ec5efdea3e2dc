"""Convolutions of OpenVINO's graphs that the kernel of few bits takes over, as an operation of its own."""

from __future__ import annotations

import importlib
import os
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qartsr.runtime.winograd import Codes, Weights, Winograd, compiler, suits, unavailable_reason

_LEAST = 100_000_000
"""Products of a direct convolution for which the kernel is worth its call."""


def wanted(without_vnni: bool) -> bool:
    """Whether graphs are to use the kernel: QARTSR_WINOGRAD says 0 or 1, else where bytes are not multiplied exactly.

    There OpenVINO computes in floating point (:func:`qartsr.runtime.graphs.exact_products`). Nowhere without a
    compiler: graphs that were kept while there was one have the operation, and the kernel could not be made again.
    """
    asked = {"0": False, "1": True}.get(os.environ.get("QARTSR_WINOGRAD", "").strip(), without_vnni)
    return asked and bool(compiler())


class _Found(NamedTuple):
    """A convolution that the kernel takes over."""

    codes: Any
    """its input as integers"""
    weights: Weights
    scale: NDArray[np.float32]
    """by output channel, of both"""
    low: int
    zero: int
    most: int
    """the least code of the input, the one that means 0, and the largest less the least"""


def substitute(model: Any, threads: int) -> int:
    """Let the kernel take over convolutions of ``model`` (all shapes known); returns how many.

    The core that compiles the model, or imports it compiled, must know :func:`operation`.
    """
    found = [(node, match) for node in model.get_ordered_ops() if (match := _match(node)) is not None]
    if not found or unavailable_reason() is not None:
        return 0
    ops: Any = importlib.import_module("openvino.opset13")
    for node, match in found:
        turned = ops.transpose(match.codes, np.array([0, 2, 3, 1]))
        told = np.array([match.low, match.zero, match.most, threads], np.int32)
        constants = [ops.constant(each) for each in (match.weights, match.scale, told)]
        made = operation()([turned.output(0), *(constant.output(0) for constant in constants)])
        back = ops.transpose(made, np.array([0, 3, 1, 2]))
        back.set_friendly_name(node.get_friendly_name())
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(back.output(0))
    return len(found)


@cache
def operation() -> Any:
    """OpenVINO's class of the kernel: (codes, weights, scale, [low, zero, most, threads]), channels last.

    Everything is told by constants, so that compiled graphs can be kept; the layer is made when it first runs.
    """
    import openvino

    class QartsrWinograd(openvino.Op):  # type: ignore[misc]
        def __init__(self, inputs: Any = None) -> None:
            super().__init__(self, inputs)
            self._layer: Winograd | None = None

        def validate_and_infer_types(self) -> None:
            batch, height, width, _ = self.get_input_partial_shape(0)
            outputs = self.get_input_partial_shape(1)[0]
            self.set_output_type(0, openvino.Type.f32, openvino.PartialShape([batch, height, width, outputs]))

        def clone_with_new_inputs(self, inputs: Any) -> Any:
            return QartsrWinograd(inputs)

        def visit_attributes(self, visitor: Any) -> bool:
            return True

        def has_evaluate(self) -> bool:
            return True

        def evaluate(self, outputs: Any, inputs: Any) -> bool:
            codes, weights, scale, told = (each.data for each in inputs)
            low, zero, most, threads = (int(each) for each in told)
            if self._layer is None:
                self._layer = Winograd(weights.astype(np.int8), most)
                self._base = (zero - low) * -weights.astype(np.int64).sum((1, 2, 3))
            pad = np.full(codes.shape[3], zero - low, np.uint8)
            for image, made in zip(codes, outputs[0].data, strict=True):
                self._layer(_above(image, low), pad, scale, self._base, threads, out=made)
            return True

    return QartsrWinograd


def _above(codes: NDArray[Any], low: int) -> Codes:
    """Codes of 8 bits, signed or not, less the least of them."""
    return codes.view(np.uint8) - np.uint8(low % 256)


def _match(node: Any) -> _Found | None:
    """A 3 x 3 convolution of codes with codes, as :mod:`qartsr.export.layers` writes it, that is worth it."""
    if node.get_type_name() != "Convolution" or node.get_output_partial_shape(0).is_dynamic:
        return None
    told = node.get_attributes()
    if any(list(told[name]) != [1, 1] for name in ("strides", "dilations", "pads_begin", "pads_end")):
        return None
    x, w = (_dequantized(node.input_value(port).get_node()) for port in (0, 1))
    if x is None or w is None or x.scale.size != 1 or w.zero.any():
        return None
    bounds, codes = _bounds(x.codes.get_node()), _number(w.codes.get_node())
    if bounds is None or codes is None or codes.dtype != np.int8 or w.scale.size not in (1, len(codes)):
        return None
    work = int(np.prod(node.get_output_shape(0))) * codes[0].size
    low, most = bounds[0], bounds[1] - bounds[0]
    if work < _LEAST or not suits(codes, most):
        return None
    scale = np.broadcast_to(x.scale.ravel() * w.scale.ravel(), len(codes)).astype(np.float32)
    return _Found(x.codes, codes, scale, low, int(x.zero.ravel()[0]), most)


class _Dequantized(NamedTuple):
    codes: Any
    scale: NDArray[np.float64]
    zero: NDArray[np.float64]


def _dequantized(node: Any) -> _Dequantized | None:
    """(codes - zero) * scale."""
    if node.get_type_name() != "Multiply":
        return None
    scale, inner = _number(node.input_value(1).get_node()), node.input_value(0).get_node()
    zero: NDArray[Any] | None = np.zeros(1)
    if inner.get_type_name() == "Subtract":
        zero, inner = _number(inner.input_value(1).get_node()), inner.input_value(0).get_node()
    if scale is None or zero is None or inner.get_type_name() != "Convert":
        return None
    return _Dequantized(inner.input_value(0), scale.astype(np.float64), zero.astype(np.float64))


def _number(node: Any) -> NDArray[Any] | None:
    """Of a constant, converted or reshaped."""
    while node.get_type_name() in ("Convert", "Reshape"):
        node = node.input_value(0).get_node()
    return np.array(node.get_data()) if node.get_type_name() == "Constant" else None


def _bounds(node: Any) -> tuple[int, int] | None:
    """The least and the largest code where it is cut to them."""
    ends = {}
    for kind in ("Minimum", "Maximum"):
        if node.get_type_name() != kind:
            return None
        numbers = [_number(node.input_value(port).get_node()) for port in (0, 1)]
        known = [each for each in numbers if each is not None and each.size == 1]
        if len(known) != 1:
            return None
        ends[kind] = int(known[0].ravel()[0])
        node = node.input_value(0 if numbers[0] is None else 1).get_node()
    return ends["Maximum"], ends["Minimum"]
