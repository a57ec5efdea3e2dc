"""The head of a package: recognised, bounded, verified and parsed before anything is allocated.

The table of tensors, which is safetensors', is judged here as far as it can be before a byte of them is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from qartsr.artifact.base import Config
from qartsr.artifact.spec import LayerSpec
from qartsr.errors import QartsrError, dotted, short
from qartsr.files import reading

_AGAIN = "fetch or make the package again"


class TensorEntry(Config):
    """Where one tensor lies, and what the file claims it is."""

    dtype: str
    shape: tuple[int, ...] = Field(max_length=8)
    data_offsets: tuple[int, int]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.data_offsets[1] - self.data_offsets[0]


Table = dict[str, TensorEntry]
_TABLE = TypeAdapter(Table)


def read_table(raw: dict[str, Any], size: int, where: str) -> Table:
    """Check that the tensors lie one behind the other and fill ``size`` bytes, so nobody believes an absurd one.

    Raises QartsrError otherwise. Shapes are what the file claims; whoever uses them compares them with the structure.
    """
    try:
        table = _TABLE.validate_python(raw)
    except ValidationError as error:
        raise _unusable(where) from error
    position = 0
    for start, end in sorted(entry.data_offsets for entry in table.values()):
        if not position == start <= end:
            raise _unusable(where)
        position = end
    if position != size:
        raise QartsrError(f"holds {size} bytes of tensors where {position} are announced", where, _AGAIN)
    return table


def _unusable(where: str) -> QartsrError:
    return QartsrError("is damaged: its table of tensors is unusable", where, _AGAIN)


SCHEMA_VERSION = 2
"""What is written; 1, without rotations, ranges per token and graphs, is read too."""
KEY = "qartsr"
MAGIC = b'{"__metadata__":{"qartsr":"{\\"checksum\\":\\"'
"""Bytes 8 and following of every package; the 64 hexadecimal digits of the checksum come next."""

_LENGTH, _DIGITS, _LIMIT = 8, 64, 64 << 20
_BLANK = "0" * _DIGITS


class LayerEntry(Config):
    """A layer as planned, and as stored; ``stored`` is null for one kept in floating point or folded into a constant.

    The bounds are those of :class:`qartsr.quantize.LayerPlan`, so that every header that is read has a plan.
    """

    name: str
    recipe: int = Field(ge=0)
    """its place in ``Header.recipes``"""
    weight_bits: int = Field(ge=2, le=16)
    input_bits: int = Field(ge=2, le=16)
    float: bool
    """planned to stay in floating point"""
    stored: LayerSpec | None


class Header(Config):
    """Everything about a package but its tensors. ``provenance``: the maker's word on profile, commit, data, ..."""

    checksum: str
    schema_version: Literal[1, 2]
    method: str
    bits: str
    architecture: dict[str, Any]
    recipes: tuple[dict[str, Any], ...]
    """JSON of :class:`qartsr.config.parts.LayerRecipe`: how layers were made; who runs a package needs none of it"""
    layers: tuple[LayerEntry, ...]
    constants: dict[str, tuple[int, ...]]
    """folded modules and the shapes of what stands in their place; empty where nothing is folded"""
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _consistent(self) -> Header:
        if any(entry.recipe >= len(self.recipes) for entry in self.layers):
            raise ValueError("a layer has no recipe")
        if len({entry.name for entry in self.layers}) < len(self.layers):
            raise ValueError("a layer is listed twice")
        for entry in self.layers:
            if (entry.stored is None) != (entry.float or is_folded(entry.name, self.constants)):
                raise ValueError("a layer is neither stored nor float nor folded, or more than one of them")
        return self

    def specs(self) -> dict[str, LayerSpec]:
        """The packed layers."""
        return {entry.name: entry.stored for entry in self.layers if entry.stored is not None}


def is_folded(name: str, folded: Mapping[str, object]) -> bool:
    """Whether the layer ``name`` is, or was part of, one of the ``folded`` modules."""
    return any(name == module or name.startswith(f"{module}.") for module in folded)


class Head(NamedTuple):
    """A validated head."""

    header: Header
    table: Table
    """dtype, shape and place of every tensor, as the file claims them"""
    size: int
    """bytes of the length field and the JSON"""


def metadata(header: Header) -> dict[str, str]:
    """The header as safetensors metadata, its checksum still blank; equal headers give equal bytes."""
    body = json.dumps(header.model_dump(mode="json", exclude={"checksum"}), sort_keys=True, separators=(",", ":"))
    return {KEY: f'{{"checksum":"{_BLANK}",{body[1:]}'}


def sealed(data: bytes) -> bytes:
    """The file with its checksum filled in: SHA-256 of all bytes while the checksum's own 64 digits are "0"."""
    start = _LENGTH + len(MAGIC)
    if data[_LENGTH:start] != MAGIC or data[start : start + _DIGITS] != _BLANK.encode():
        raise ValueError("safetensors laid out the header in another way")
    digits = hashlib.sha256(data).hexdigest().encode()
    return data[:start] + digits + data[start + _DIGITS :]


def read_head(path: Path) -> Head:
    """Validate a package's bytes and parse its header.

    Raises QartsrError, one sentence each, for a file that is missing, no package, truncated, damaged in any byte, or
    written by a newer version.
    """
    with reading(path), path.open("rb") as handle:
        return _read(handle, path.stat().st_size, str(path))


def _read(handle: BinaryIO, size: int, where: str) -> Head:
    start = handle.read(_LENGTH + len(MAGIC) + _DIGITS)
    if start[_LENGTH : _LENGTH + len(MAGIC)] != MAGIC:
        raise QartsrError("is not a qartsr package", where, "give the model.safetensors that stage `package` writes")
    length = int.from_bytes(start[:_LENGTH], "little")
    if length > _LIMIT or _LENGTH + length > size:
        raise QartsrError("is damaged or truncated in its header", where, _AGAIN)
    handle.seek(_LENGTH)
    values, raw = _json(handle.read(length), where)
    _check_version(values, where)
    table = read_table(raw, size - _LENGTH - length, where)
    handle.seek(0)
    if _checksum(handle) != values.get("checksum"):
        raise QartsrError("is damaged: its checksum does not match its bytes", where, _AGAIN)
    try:
        return Head(Header.model_validate(values), table, _LENGTH + length)
    except ValidationError as error:
        first = error.errors()[0]
        key = dotted(first["loc"])
        raise QartsrError(f"has an unusable header ({key}: {first['msg'][:200]})", where, _AGAIN) from error


def _json(raw: bytes, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        table = json.loads(raw)
        values = json.loads(table.pop("__metadata__")[KEY])
        if isinstance(values, dict):
            return values, table
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise QartsrError("is damaged: its header is not JSON", where, _AGAIN)


def _check_version(values: dict[str, Any], where: str) -> None:
    version = values.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise QartsrError(f"has format {version}, this program reads up to {SCHEMA_VERSION}", where, "update qartsr")
    if version not in range(1, SCHEMA_VERSION + 1):
        raise QartsrError(f"has the unknown format {short(version)}", where, _AGAIN)


def _checksum(handle: BinaryIO) -> str:
    start = _LENGTH + len(MAGIC)
    digest = hashlib.sha256(handle.read(start))
    handle.read(_DIGITS)
    digest.update(_BLANK.encode())
    while block := handle.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
