"""The table of tensors of a safetensors file, as far as it can be judged before a byte of them is read."""

from __future__ import annotations

from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from qartsr.artifact.base import Config
from qartsr.errors import QartsrError

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
