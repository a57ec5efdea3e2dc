"""The graphs of a package: what the network computes, for inputs of every size, without what is in its tensors.

The tensor ``graphs`` (U8) of a package is LZMA of: the length of a JSON text (4 bytes, little-endian), the text, pieces
of ONNX models one behind the other. The text has the numbers of :class:`Facts`, and of each model its pieces and the
recipes (:mod:`qartsr.artifact.values`) of the constants that it lacks, which are the names it calls them by. A model is
its pieces joined: in Protocol Buffers, messages that follow each other are one message. Modes differ in
their norms only.
"""

from __future__ import annotations

import ast
import json
import lzma
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qartsr.artifact.base import Config
from qartsr.artifact.load import Load

TENSOR = "graphs"
_LIMIT = 1 << 28
_LENGTH, _LONGEST = 4, 400
_TYPES = {"float32": 1, "int8": 3}
"""Of ONNX."""


class Norm(Config):
    """A GroupNorm; its weight and bias are tensors."""

    name: str
    groups: int = Field(ge=1)
    eps: float
    part: str
    sides: tuple[str, ...]
    """what follows the channels of its input: expressions of ``rows`` and ``columns``, in steps of its part's input"""


class Skeleton(Config):
    """One model."""

    pieces: tuple[int, ...]
    recipes: tuple[str, ...]


class Facts(Config):
    """What there is to know of a network beside its graphs."""

    align: str
    scale: int
    factor: int = Field(ge=1)
    multiple: int = Field(ge=1)
    latents: int = Field(ge=1)
    scaling: float
    linear: float
    square: float
    """see :class:`qartsr.artifact.load.Load`"""
    noise: float
    signal: float
    """Z_H = (Z_L - noise * prediction) / signal"""
    steps: dict[str, int]
    """sides of the input of a part are multiples of this"""
    norms: tuple[Norm, ...]
    """in the order they are called"""
    graphs: dict[str, dict[str, Skeleton]]
    """by part and mode"""
    pieces: tuple[int, ...]
    """their bytes"""
    frames: int = Field(1, ge=1, le=2)
    """whose latents the denoiser sees, the last one now; stored where it is not 1"""
    window: int = Field(0, ge=0)
    """see :class:`qartsr.artifact.load.Load`; stored where it is not 0"""
    most: int = Field(0, ge=0)
    """longest side of a picture, pixels; 0: any, and not stored"""
    patch: int = Field(1, ge=1)
    """sides of latents are multiples of this; stored where it is not 1"""

    @property
    def load(self) -> Load:
        """What a run needs."""
        return Load(self.linear, self.square, self.window, self.most)


class Packed(NamedTuple):
    """What the tensor holds."""

    facts: Facts
    pieces: tuple[bytes, ...]


def packed(facts: Mapping[str, Any], models: Mapping[tuple[str, str], tuple[list[bytes], list[str]]]) -> bytes:
    """The tensor's bytes, of :class:`Facts` but for graphs, and of models: pieces and recipes by part and mode."""
    unique: dict[bytes, int] = {}
    graphs = dict[str, dict[str, Any]]()
    for (part, mode), (pieces, recipes) in models.items():
        places = [unique.setdefault(piece, len(unique)) for piece in pieces]
        graphs.setdefault(part, {})[mode] = {"pieces": places, "recipes": recipes}
    found = Facts.model_validate({**facts, "graphs": graphs, "pieces": [len(piece) for piece in unique]})
    text = found.model_dump_json(exclude_defaults=True).encode()
    whole = b"".join([len(text).to_bytes(_LENGTH, "little"), text, *unique])
    return lzma.compress(whole, preset=9 | lzma.PRESET_EXTREME)


def unpacked(data: bytes) -> Packed:
    """The opposite. Raises ValueError (pydantic's too) or LZMAError for anything else."""
    decoder = lzma.LZMADecompressor(memlimit=1 << 30)
    whole = decoder.decompress(data, _LIMIT)
    if not decoder.eof:
        raise ValueError("too large or truncated")
    place = _LENGTH + int.from_bytes(whole[:_LENGTH], "little")
    facts = Facts.model_validate(json.loads(whole[_LENGTH:place]))
    pieces = []
    for size in facts.pieces:
        pieces.append(whole[place : place + size])
        place += size
    if place != len(whole) or min(facts.pieces, default=0) < 0:
        raise ValueError("pieces do not fit")
    return Packed(facts, tuple(pieces))


def nodes(*each: bytes) -> bytes:
    """A piece of a model: nodes, each a NodeProto."""
    content = b"".join(_field(1, node) for node in each)
    return _field(7, content)


def with_constants(model: bytes, constants: Mapping[str, NDArray[Any]]) -> bytes:
    """The ONNX model with initializers added."""
    added = [_field(5, _tensor(name, value)) for name, value in constants.items()]  # joined once: they may be large
    return b"".join([model, _tag(7), _varint(sum(map(len, added))), *added])


def _tensor(name: str, value: NDArray[Any]) -> bytes:
    """TensorProto: dims, data_type, name, raw_data."""
    dims = b"".join(b"\x08" + _varint(side) for side in value.shape)
    kind = b"\x10" + _varint(_TYPES[str(value.dtype)])
    return b"".join([dims, kind, _field(8, name.encode()), _field(9, np.ascontiguousarray(value).tobytes())])


def _field(number: int, content: bytes) -> bytes:
    return b"".join([_tag(number), _varint(len(content)), content])


def _tag(number: int) -> bytes:
    return _varint(number << 3 | 2)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


_OPERATIONS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def evaluate(expression: str, names: Mapping[str, int]) -> int:
    """A sum, difference, product or floor of a quotient of whole numbers and ``names``. Raises ValueError."""
    if len(expression) > _LONGEST:
        raise ValueError("is too long")
    return _value(ast.parse(expression, mode="eval").body, names)


def _value(node: ast.expr, names: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, names)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left, names), _value(node.right, names))
    raise ValueError(f"{ast.unparse(node)} is no size")
