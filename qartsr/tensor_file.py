"""The layout of a safetensors file, from names, types and shapes alone. No torch here.

Bytes 0 to 7: length of the header, little-endian; then the header, JSON padded with blanks to a multiple of 8 bytes;
then the tensors. Written as the safetensors library writes it: wider types first, equal types by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

WIDTHS = {"F32": 4, "F16": 2, "U8": 1}
"""Bytes of one value."""
_LENGTH = 8


class Entry(NamedTuple):
    """One tensor: its type (a key of :data:`WIDTHS`) and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return WIDTHS[self.dtype] * math.prod(self.shape)


def ordered(tensors: Mapping[str, Entry]) -> list[str]:
    """The names in the order of their data."""
    return sorted(tensors, key=lambda name: (-WIDTHS[tensors[name].dtype], name))


def head(tensors: Mapping[str, Entry], metadata: Mapping[str, str]) -> bytes:
    """All that stands before the first tensor. ``metadata`` should have one key: the order of several is not fixed."""
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name in ordered(tensors):
        entry = tensors[name]
        table[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [position, position + entry.size],
        }
        position += entry.size
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH)
    return len(text).to_bytes(_LENGTH, "little") + text


def file_size(tensors: Mapping[str, Entry], metadata: Mapping[str, str]) -> int:
    """Bytes of the whole file."""
    return len(head(tensors, metadata)) + sum(entry.size for entry in tensors.values())
