"""An ONNX graph under construction: nodes, constants, inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
"""The first with GroupNormalization as torch has it: one weight per channel."""
_IR = 10
_SMALL = 64
"""Constants of at most so many values are stored once, however often they are used."""
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


@dataclass(frozen=True)
class Ref:
    """A value of the graph, by name."""

    name: str


Array = NDArray[Any]
Operand = Ref | torch.Tensor | Array | float | int
"""What may be an input of a node: numbers become fp32 constants, tensors and arrays keep their type."""


class Graph:
    """Grows node by node."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes] | None, Ref] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._count = 0
        self.varies = False
        """whether an input varies in size"""

    @property
    def size(self) -> int:
        """How many nodes there are."""
        return len(self._nodes)

    def node(self, kind: str, *operands: Operand, name: str = "", **attributes: Any) -> Ref:
        """Append a node of one output. ``name`` names its output; a number is appended where none is given."""
        return self.split(kind, 1, *operands, name=name, **attributes)[0]

    def split(self, kind: str, count: int, *operands: Operand, name: str = "", **attributes: Any) -> tuple[Ref, ...]:
        """Append a node of ``count`` outputs."""
        self._count += 1
        base = name or f"{kind}_{self._count}"
        names = [base] if count == 1 else [f"{base}.{index}" for index in range(count)]
        inputs = [self.ref(operand).name for operand in operands]
        self._nodes.append(helper.make_node(kind, inputs, names, name=f"{base}/{kind}", **attributes))
        return tuple(Ref(each) for each in names)

    def ref(self, operand: Operand) -> Ref:
        """The operand itself, or the constant it becomes."""
        return operand if isinstance(operand, Ref) else self.constant(operand)

    def constant(self, value: torch.Tensor | Array | float | int, name: str = "") -> Ref:
        """A stored constant of any shape; its name begins with ``name``."""
        array = _array(value)
        key = (str(array.dtype), array.shape, array.tobytes()) if array.size <= _SMALL else None
        if key in self._known:
            return self._known[key]
        label = f"{name or 'constant'}_{len(self._constants)}"
        self._constants[label] = numpy_helper.from_array(array, label)
        if key is not None:
            self._known[key] = Ref(label)
        return Ref(label)

    def shape(self, *dimensions: int | Ref) -> Operand:
        """A 1-D int64 shape; dimensions known at run time only are (1,) values of the graph."""
        if not any(isinstance(each, Ref) for each in dimensions):
            return np.array(dimensions, np.int64)
        pieces: list[Operand] = [each if isinstance(each, Ref) else np.array([each]) for each in dimensions]
        return self.node("Concat", *pieces, axis=0)

    def input(self, name: str, shape: Sequence[int | str], kind: str = "float32") -> Ref:
        """Declare an input; a dimension that varies has a name."""
        self.varies |= any(isinstance(side, str) for side in shape)
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[kind], list(shape)))
        return Ref(name)

    def output(self, name: str, value: Ref, shape: Sequence[int | str]) -> None:
        """Declare ``value`` as the output ``name``."""
        self._nodes.append(helper.make_node("Identity", [value.name], [name], name=f"{name}/Identity"))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def model(self, facts: dict[str, str]) -> onnx.ModelProto:
        """The finished model; ``facts`` are its metadata."""
        graph = helper.make_graph(
            self._nodes, "qartsr", self._inputs, self._outputs, initializer=list(self._constants.values())
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR, producer_name="qartsr"
        )
        helper.set_model_props(model, facts)
        return model


def _array(value: torch.Tensor | Array | float | int) -> Array:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    return value if isinstance(value, np.ndarray) else np.array(value, np.float32)
