"""A package with graphs, opened without torch."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from lzma import LZMAError
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qartsr.artifact.graphs import TENSOR, Facts, Norm, evaluate, unpacked, with_constants
from qartsr.artifact.header import Head, read_head
from qartsr.artifact.values import Values
from qartsr.errors import QartsrError
from qartsr.runtime.moments import GroupNorm
from qartsr.runtime.norms import Mode

_DTYPES: Mapping[str, Any] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "U8": np.dtype("u1")}
_AGAIN = "fetch or make the package again"


class PackageGraphs:
    """Graphs and tensors of a package file; see :class:`qartsr.runtime.graphs.GraphSource`."""

    def __init__(self, path: Path, head: Head) -> None:
        self._path, self._head = path, head
        self.identity = head.header.checksum
        with self._readable():
            self.facts, self._pieces = unpacked(_Tensors(path, head)[TENSOR].tobytes())

    @cached_property
    def group_norms(self) -> Mapping[str, GroupNorm]:
        """By name, in the order they are called."""
        with self._readable():
            tensors = _Tensors(self._path, self._head)
            return {norm.name: _group_norm(norm, tensors) for norm in self.facts.norms}

    def graph(self, part: str, mode: Mode) -> bytes:
        """ONNX. Raises QartsrError where the package's graphs do not fit its tensors."""
        with self._readable():
            skeleton = self.facts.graphs[part][mode]
            value = Values(self._head.header.specs(), _Tensors(self._path, self._head))
            constants = {recipe: value(recipe) for recipe in skeleton.recipes}
            return with_constants(b"".join(self._pieces[place] for place in skeleton.pieces), constants)

    def sides(self, name: str, size: tuple[int, int]) -> tuple[int, ...]:
        """What follows the channels of the input of the norm ``name`` in its part, whose input has ``size``."""
        return sides_of(self.facts, name, size)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise QartsrError(f"cannot be read ({error.strerror})", str(self._path), "check the path") from error
        except (ValueError, LookupError, TypeError, ArithmeticError, SyntaxError, LZMAError, MemoryError) as error:
            reason = " ".join(str(error).split())[:200]
            raise QartsrError(f"has unusable graphs ({reason})", str(self._path), _AGAIN) from error


class _Tensors(Mapping[str, NDArray[Any]]):
    """Tensors of a package, read when they are asked for; floats as fp32."""

    def __init__(self, path: Path, head: Head) -> None:
        self._table = head.table
        with path.open("rb") as handle:
            whole = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        self._data = memoryview(whole)[head.size :]

    def __getitem__(self, name: str) -> NDArray[Any]:
        entry = self._table[name]
        begin, end = entry.data_offsets
        values: NDArray[Any] = np.frombuffer(self._data[begin:end], _DTYPES[entry.dtype]).reshape(entry.shape)
        return values if entry.dtype == "U8" else values.astype(np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def open_graphs(path: Path) -> PackageGraphs | None:
    """The graphs of a package, its bytes verified; None if it has none. Raises QartsrError for what is no package."""
    head = read_head(path)
    return PackageGraphs(path, head) if TENSOR in head.table else None


def sides_of(facts: Facts, name: str, size: tuple[int, int]) -> tuple[int, ...]:
    """Sides of the input of a norm."""
    norm = next(each for each in facts.norms if each.name == name)
    step = facts.steps[norm.part]
    names = {"rows": size[0] // step, "columns": size[1] // step}
    return tuple(evaluate(side, names) for side in norm.sides)


def _group_norm(norm: Norm, tensors: Mapping[str, NDArray[Any]]) -> GroupNorm:
    weight, bias = (tensors[f"{norm.name}.{key}"] for key in ("weight", "bias"))
    if weight.ndim != 1 or weight.shape != bias.shape or len(weight) % norm.groups:
        raise ValueError(f"{norm.name} is no GroupNorm")
    return GroupNorm(norm.groups, norm.eps, weight, bias)


__all__ = ["PackageGraphs", "open_graphs", "sides_of"]
