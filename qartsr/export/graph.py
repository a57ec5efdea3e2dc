"""An ONNX graph: nodes, constants, inputs and outputs while it is built, and its files, written whole or not at all.

Files are ONNX (one) or OpenVINO IR (``.xml`` and ``.bin``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qartsr.errors import QartsrError
from qartsr.files import replacing, write_bytes
from qartsr.runtime.graphs import import_openvino

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
    """Grows node by node. ``settles``: sides that vary get their numbers before it is compiled."""

    def __init__(self, settles: bool = False) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes] | None, Ref] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._count, self._settles = 0, settles
        self.varies = False
        """whether an input varies in size"""

    @property
    def runs_varying(self) -> bool:
        """Whether an input varies in size when the graph runs."""
        return self.varies and not self._settles

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

    def constant(self, value: torch.Tensor | Array | float | int, name: str = "", shared: bool = False) -> Ref:
        """A stored constant of any shape; its name begins with ``name``. ``shared``: equal ones are stored once."""
        array = _array(value)
        key = (str(array.dtype), array.shape, array.tobytes()) if shared or array.size <= _SMALL else None
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


_LIMIT = 2**31 - 1
FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
"""By name, the ending of the file."""


def check_target(path: Path, form: str) -> None:
    """Raises QartsrError when ``path`` does not end as files of this format do, or is a folder."""
    if path.suffix != FORMATS[form]:
        raise QartsrError(f"is no name for {form}", str(path), f"let it end in {FORMATS[form]}")
    files = (path, path.with_suffix(".bin")) if form == "openvino" else (path,)
    if folder := next((each for each in files if each.is_dir()), None):
        raise QartsrError("is a folder", str(folder), "choose another name")


def serialized(model: onnx.ModelProto) -> bytes:
    """The bytes of an ONNX file. Raises QartsrError above 2 GiB, which the format does not have in one file."""
    if model.ByteSize() > _LIMIT:
        what = "has more than 2 GiB, which one ONNX file cannot hold"
        raise QartsrError(what, "the graph", "export a quantized model")
    return model.SerializeToString(deterministic=True)


def write_onnx(path: Path, model: onnx.ModelProto) -> None:
    """Write ONNX. Raises QartsrError when it cannot be written."""
    write_bytes(path, serialized(model))


def write_openvino(path: Path, model: onnx.ModelProto) -> None:
    """Write OpenVINO IR: ``path`` (.xml) and the weights beside it (.bin).

    Raises QartsrError without openvino, and when it cannot be written.
    """
    openvino: Any = import_openvino()
    core = openvino.Core()
    with TemporaryDirectory() as folder:
        whole = Path(folder) / path.name
        graph = core.read_model(serialized(model))
        for fact in model.metadata_props:
            graph.set_rt_info(fact.value, fact.key.split("."))
        try:
            openvino.save_model(graph, whole, compress_to_fp16=False)
        except RuntimeError as error:  # it has no other name for a full disk
            do = "free some disk space there, or name another folder in TMPDIR"
            raise QartsrError(f"cannot be written ({' '.join(str(error).split())})", folder, do) from error
        for suffix in (".bin", ".xml"):  # the description last: where it is, everything is
            with replacing(path.with_suffix(suffix)) as temporary:
                temporary.write_bytes(whole.with_suffix(suffix).read_bytes())
