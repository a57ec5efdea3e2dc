"""Convolutions of 3 x 3 with 4 instead of 9 products for each output, exact in integers: what few bits buy in time.

F(2 x 2, 3 x 3) of Winograd's minimal filtering (Lavin and Gray, arXiv 1509.09308). In floating point it loses digits;
codes of four bits and fewer stay so small that their transforms fit 8 bits, and nothing is lost. The kernel
(winograd.cpp) is compiled once on the machine that runs it and kept in the user's cache; where that cannot be,
:func:`unavailable_reason` says why, and OpenVINO's own convolutions do the same.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qartsr.errors import QartsrError
from qartsr.files import cache_folder

_SOURCE = Path(__file__).with_suffix(".cpp")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread")
_PAIR = 2**15 - 1
"""What the sum of two products must fit, where the processor adds them in 16 bits."""

Codes = NDArray[np.uint8]
Weights = NDArray[np.int8]
"""(O, I, 3, 3), whole numbers"""


def suits(weights: Weights, most: int) -> bool:
    """Whether the kernel takes weights and inputs of 0 .. ``most``: O in sixteens, I in 32s, and all sums in range."""
    out, channels, *sides = weights.shape
    if sides != [3, 3] or out % 16 or channels % 32 or not 0 < most < 64:
        return False
    stored = (weights.astype(np.int16) - 1) // 2 if _odd(weights) else weights.astype(np.int16)
    if _fits(9 * int(np.abs(stored).max(initial=1)), most):  # no transform is larger
        return True
    for axis in (2, 3):
        first, middle, last = np.moveaxis(stored, axis, 0)[:3]
        stored = np.stack([first, first + middle + last, first - middle + last, last], axis)
    return _fits(int(np.abs(stored).max(initial=1)), most)


def _fits(largest: int, most: int) -> bool:
    return largest < 128 and 2 * 4 * most * largest <= _PAIR


def _odd(weights: Weights) -> bool:
    """As the grids are that have 0 between two codes (:mod:`qartsr.export.layers`)."""
    return bool((weights & 1).all())


class Winograd:
    """One layer on inputs of 0 .. ``most``.

    Raises ValueError for weights that it does not suit, QartsrError where the kernel is not to be had.
    """

    def __init__(self, weights: Weights, most: int) -> None:
        if not suits(weights, most):
            raise ValueError("these weights are not for this kernel")
        self._library, (self._out, self._in) = _library(), weights.shape[:2]
        values = np.ascontiguousarray(weights, np.int8)
        new = self._library.winograd_new
        self._layer = ctypes.c_void_p(new(self._in, self._out, _address(values), most, int(_odd(weights))))

    def __call__(
        self,
        x: Codes,
        pad: Codes,
        scale: NDArray[np.float32],
        base: NDArray[np.int32],
        threads: int = 1,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """``scale`` * (the convolution with stride 1 + ``base``) by channel, (H, W, I) -> (H, W, O), into ``out``.

        ``pad`` (I,) are the codes one pixel beyond the edges. Raises ValueError for other shapes.
        """
        made = np.empty((*x.shape[:2], self._out), np.float32) if out is None else out
        shapes = (x.shape[2:], pad.shape, scale.shape, base.shape, made.shape)
        wanted_shapes = ((self._in,), (self._in,), (self._out,), (self._out,), (*x.shape[:2], self._out))
        if shapes != wanted_shapes or made.dtype != np.float32 or not made.flags.c_contiguous:
            raise ValueError("other channels than the weights have")
        given = [np.ascontiguousarray(each, kind) for each, kind in zip((x, pad, scale, base), _KINDS, strict=True)]
        addresses = [_address(each) for each in (*given, made)]
        self._library.winograd_run(self._layer, *made.shape[:2], *addresses, max(1, threads))
        return made

    def __del__(self) -> None:
        if hasattr(self, "_layer"):
            self._library.winograd_delete(self._layer)


_KINDS = (np.uint8, np.uint8, np.float32, np.int32)


def _address(array: NDArray[Any]) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def compiler() -> list[str]:
    """The command of a C++ compiler, CXX or one that is found; empty: there is none."""
    return shlex.split(os.environ.get("CXX", "")) or list(filter(shutil.which, ("c++", "g++", "clang++")))[:1]


@cache
def unavailable_reason() -> str | None:
    """Why there is no kernel on this machine, None where there is; found out once in a process."""
    try:
        _library()
    except QartsrError as error:
        return str(error)
    return None


@cache
def _library() -> ctypes.CDLL:
    command = compiler()
    if not command:
        raise QartsrError("there is no C++ compiler", "the kernel of few bits", "install g++ or clang")
    told = (_SOURCE.read_bytes(), *(repr(each).encode() for each in (command, _FLAGS, _processor())))
    file = cache_folder() / f"winograd-{hashlib.sha256(b'|'.join(told)).hexdigest()[:16]}.so"
    try:
        if not file.exists():
            _compile(command, file)
        library = ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError) as error:
        raise QartsrError(
            f"cannot be made ({error})", "the kernel of few bits", "see what the compiler lacks"
        ) from error
    library.winograd_new.restype = ctypes.c_void_p
    return library


def _compile(command: list[str], file: Path) -> None:
    """Whole or not at all, beside others that do the same."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / file.name
        words = [*command, *_FLAGS, str(_SOURCE), "-o", str(made)]
        ran = subprocess.run(words, capture_output=True, text=True, timeout=300)
        if ran.returncode:
            fault = next((line for line in ran.stderr.splitlines() if "error" in line), "no reason is told")
            raise QartsrError(f"does not compile here: {fault}", "the kernel of few bits", "use another compiler (CXX)")
        made.replace(file)


def _processor() -> list[bytes]:
    """What ``-march=native`` means here: a home folder may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return [platform.machine().encode(), platform.processor().encode()]
    return sorted({line for line in lines if line.startswith((b"flags", b"model name"))})
