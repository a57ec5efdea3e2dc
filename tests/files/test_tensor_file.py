"""Our layout of a safetensors file is the library's, byte for byte."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save

from qartsr.tensor_file import Entry, file_size, head

TENSORS = {
    "b.codes": torch.zeros(7, dtype=torch.uint8),
    "a": torch.zeros(3, 2, dtype=torch.float16),
    "z.grid": torch.ones(2),
    "a.grid": torch.ones(2, 5, 1, 1),
    "c.scalar": torch.tensor(1.0),
    "empty": torch.zeros(0, 4),
}
NAMES = {torch.uint8: "U8", torch.float16: "F16", torch.float32: "F32"}
ENTRIES = {name: Entry(NAMES[value.dtype], tuple(value.shape)) for name, value in TENSORS.items()}


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}, {"qartsr": '{"a":"\\u00e9 \\"x\\""}'}])
def test_head_and_size_are_those_of_the_library(metadata: dict[str, str]) -> None:
    data = save(TENSORS, metadata or None)
    start = head(ENTRIES, metadata)
    assert data[: len(start)] == start
    assert len(data) == file_size(ENTRIES, metadata)


@pytest.mark.parametrize("length", range(1, 9))
def test_padding_of_every_length(length: int) -> None:
    tensors = {"x" * length: torch.zeros(3)}
    data = save(tensors)
    assert data[: -3 * 4] == head({"x" * length: Entry("F32", (3,))}, {})
