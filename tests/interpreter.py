"""Triton's kernels for tests: interpreted on the CPU in a process of their own, or on a GPU where there is one.

TRITON_INTERPRET must be set before Triton is loaded. The tests' own process never sees the variable, and its Triton,
if anybody loads it, compiles.
"""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from benchmarks.gpu_checks import moved
from qartsr.kernels import Activation, Affine, Epilogue, Geometry, InputCodes, PackedWeight

Ask = Callable[[str, tuple[Any, ...], dict[Any, Any]], Any]


class DistantKernels:
    """:class:`qartsr.kernels.Kernels` that run elsewhere; tensors come from the CPU and return to it."""

    def __init__(self, ask: Ask, table: dict[Any, Any]) -> None:
        self._ask, self._table = ask, table

    def unpack(self, weight: PackedWeight) -> Tensor:
        return self._ask("unpack", (weight,), self._table)

    def group_norm(self, *arguments: Any) -> Affine:
        return self._ask("group_norm", arguments, self._table)

    def quantize(self, x: Tensor, codes: InputCodes) -> Tensor:
        return self._ask("quantize", (x, codes), self._table)

    def activate(self, x: Tensor, norm: Affine, codes: InputCodes, keep: bool) -> Activation:
        return self._ask("activate", (x, norm, codes, keep), self._table)

    def product(
        self, codes: Tensor, weight: Tensor, border: Tensor, geometry: Geometry, epilogue: Epilogue, dtype: torch.dtype
    ) -> Tensor:
        return self._ask("product", (codes, weight, border, geometry, epilogue, dtype), self._table)


TritonFor = Callable[[dict[Any, Any]], DistantKernels]


@pytest.fixture(scope="session")
def _interpreter() -> Iterator[Ask]:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
            pool.submit(torch.set_num_threads, 1).result()

        def ask(*request: Any) -> Any:
            return _opened(pool.submit(_answer, _sealed(request)).result())

        yield ask


@pytest.fixture(params=["interpreter", pytest.param("gpu", marks=pytest.mark.gpu)])
def triton_for(request: pytest.FixtureRequest) -> TritonFor:
    """``triton_for(table of tiles)``: the kernels of :mod:`qartsr.kernels.compiled`."""
    ask: Ask = request.getfixturevalue("_interpreter") if request.param == "interpreter" else _on_gpu
    return lambda table: DistantKernels(ask, table)


def _answer(request: bytes) -> bytes:
    return _sealed(_call(*_opened(request)))


def _call(method: str, arguments: tuple[Any, ...], table: dict[Any, Any]) -> Any:
    from qartsr.kernels.compiled import TritonKernels

    return getattr(TritonKernels(table), method)(*arguments)


def _on_gpu(method: str, arguments: tuple[Any, ...], table: dict[Any, Any]) -> Any:
    return moved(_call(method, moved(arguments, "cuda"), table), "cpu")


def _sealed(value: Any) -> bytes:
    """Bytes, because tensors would travel between processes in shared memory."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _opened(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=False)
