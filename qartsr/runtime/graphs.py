"""Graphs of one model, compiled on demand for a part, a size and a mode of the norms, and run image by image.

Compiled graphs are kept in the user's cache, so that the second start of a model is quick. A file there is named by
everything it depends on: the model's values, part, size, mode and settings, OpenVINO, the CPU, and the code that writes
graphs. An unusable or unwritable cache costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qartsr.errors import QartsrError
from qartsr.files import cache_folder, sha256_tree, write_bytes
from qartsr.runtime.moments import GroupNorm
from qartsr.runtime.norms import GraphNorms, Mode
from qartsr.runtime.winograd_op import operation, substitute, wanted

_CONVERTER = "openvino.tools.ovc"

OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "encoder": ("mean", "logvar"),
    "denoiser": ("noise",),
    "decoder": ("image",),
}
"""Of the parts of a network; the input of each is ``input``."""

_KEPT = 6
"""Compiled graphs in memory: three parts in two modes. Each holds its part's weights, one byte per code."""

_POSITIONS = 10_000
"""Of a latent, above which OpenVINO 2026.4's attention is slower in bf16 than in fp32: 1.1 times as fast at 9,216,
0.7 at 16,384 (benchmarks/cpu_attention.py; AVX-512 with bf16). There it is most of what the denoiser costs."""

Array = NDArray[np.float32]


class GraphSource(Protocol):
    """Where graphs come from: a package, or a model of modules."""

    @property
    def identity(self) -> str:
        """Differs wherever the graphs do."""
        ...

    @property
    def group_norms(self) -> Mapping[str, GroupNorm]:
        """By name, in the order they are called."""
        ...

    def graph(self, part: str, mode: Mode) -> bytes:
        """ONNX, for inputs of every size that the model takes; see :mod:`qartsr.export.norms` for what a mode adds."""
        ...

    def sides(self, name: str, size: tuple[int, int]) -> tuple[int, ...]:
        """What follows the channels of the input of the norm ``name`` in its part, whose input has ``size``."""
        ...


class Graphs:
    """Compiled parts.

    Compiling needs seconds, once per size and mode: what was compiled is kept in the user's cache. ``threads`` of the
    CPU are used.
    """

    def __init__(self, source: GraphSource, norms: GraphNorms, threads: int) -> None:
        self._source, self._norms, self._threads = source, norms, threads
        self._core = import_openvino().Core()
        self._exact = exact_products()
        self._winograd = wanted(bool(self._exact))
        if self._winograd:
            self._core.add_extension(operation())
        self._cache = Cache(self._core)
        self._compiled: OrderedDict[tuple[str, str, int, int], Any] = OrderedDict()

    def run(self, part: str, x: Array) -> tuple[Array, ...]:
        """The outputs of a part for one image, (1, C, h, w)."""
        mode = self._norms.mode()
        request = self._request(part, mode, (x.shape[2], x.shape[3]))
        compiled = request.get_compiled_model()
        shapes = {name: tuple(port.shape) for port in compiled.inputs for name in port.get_names()}
        found = request.infer({"input": np.ascontiguousarray(x), **self._norms.feed(shapes)})
        outputs = {name: value for port, value in found.items() for name in port.get_names()}
        self._norms.tell(outputs)
        return tuple(np.array(outputs[name]) for name in OUTPUTS[part])

    def _request(self, part: str, mode: Mode, size: tuple[int, int]) -> Any:
        key = (part, mode, *size)
        if key not in self._compiled:
            while len(self._compiled) >= _KEPT:
                self._compiled.popitem(last=False)
            self._compiled[key] = self._compile(part, mode, size).create_infer_request()
        self._compiled.move_to_end(key)
        return self._compiled[key]

    def _compile(self, part: str, mode: Mode, size: tuple[int, int]) -> Any:
        settings = self._settings(part, mode, size)
        key = (self._source.identity, part, mode, *size, *settings.items(), self._winograd)

        def build() -> Any:
            model = self._core.read_model(self._source.graph(part, mode))
            model.reshape({port: self._shape(port, size) for port in model.inputs if port.partial_shape.is_dynamic})
            if self._winograd:
                substitute(model, self._threads)
            return self._core.compile_model(model, "CPU", settings)

        return self._cache.get(key, settings, build)

    def _shape(self, port: Any, size: tuple[int, int]) -> Sequence[int]:
        (name,) = port.get_names()
        if name == "input":
            return (1, port.partial_shape[1].get_length(), *size)
        return (*self._source.sides(name.removesuffix(".weights"), size), 2)

    def _settings(self, part: str, mode: Mode, size: tuple[int, int]) -> dict[str, Any]:
        """One image at a time; bf16 where the CPU computes in it and gains by it."""
        able = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        gains = part != "denoiser" or size[0] * size[1] <= _POSITIONS
        return {
            "INFERENCE_PRECISION_HINT": "bf16" if able and gains and mode != "observed" else "f32",
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
            **self._exact,
        }


_FLOAT = {"LP_TRANSFORMS_MODE": "NO"}
"""Products of codes in fp32, exact below 2^24: OpenVINO leaves out what makes int8 of them."""
_SUMMED, _WEIGHT, _INPUT = 64, 127, 255
_ROUNDING = 1e-3
"""Of scales; a sum that is cut off is half of what it should be."""


@cache
def exact_products() -> Mapping[str, str]:
    """Settings with which products of 8-bit codes are summed without loss on this CPU, for ``compile_model``.

    Where a CPU has no instruction for them (VNNI), two products of bytes are added in 16 bits and cut off there, as
    OpenVINO documents; found by trying, once in a process, in some 40 ms. Raises QartsrError where no setting is exact.
    """
    core = import_openvino().Core()
    for settings in ({}, _FLOAT):
        with suppress(RuntimeError):  # a setting that this OpenVINO does not know
            if abs(_sum_of_products(core, settings) / (_SUMMED * _WEIGHT * _INPUT) - 1) < _ROUNDING:
                return settings
    do = "use another engine (--engine simulated)"
    raise QartsrError("sums of 8-bit products overflow on this CPU", "openvino", do)


def _sum_of_products(core: Any, settings: Mapping[str, str]) -> float:
    """Of the largest codes, as the graphs have them."""
    ops: Any = importlib.import_module("openvino.opset13")
    x = ops.parameter([1, _SUMMED], np.float32)
    ends = [np.float32(end) for end in (0, _INPUT, 0, _INPUT)]
    codes = ops.convert(ops.constant(np.full((_SUMMED, 16), _WEIGHT, np.int8)), "f32")
    weight = ops.multiply(codes, np.ones((1, 16), np.float32))
    y = ops.matmul(ops.fake_quantize(x, *ends, _INPUT + 1), weight, False, False)
    asked = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, **settings}
    compiled = core.compile_model(import_openvino().Model([y], [x]), "CPU", asked)
    return float(compiled({0: np.full((1, _SUMMED), _INPUT, np.float32)})[0].max())


def import_openvino() -> Any:
    """The module. Raises QartsrError where it is not installed.

    Its converter of other formats, half of the time it takes to load, is loaded when it is asked for: the converter
    also starts a thread and a process that tell Google Analytics of every import.
    """
    late = "openvino" not in sys.modules
    if late:
        sys.modules[_CONVERTER] = _Late(_CONVERTER)
    try:
        import openvino
    except ImportError as error:
        raise QartsrError("is not installed", "openvino", "pip install 'qartsr[runtime]'") from error
    finally:
        if late:
            sys.modules.pop(_CONVERTER, None)
    return openvino


class _Late(ModuleType):
    """Stands for the converter while openvino is loaded."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *given, **named: getattr(importlib.import_module(_CONVERTER), name)(*given, **named)


LIMIT = 8 << 30
"""Bytes the cache may have; the files used longest ago go first."""
_CODE = ("export", "runtime")


class Cache:
    """Compiled graphs by key, for one OpenVINO core."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._folder = cache_folder() / "openvino"
        rooms = Path(__file__).parent.parent
        code = [sha256_tree(rooms / room) for room in _CODE]
        self._where = (core.get_versions("CPU")["CPU"].build_number, core.get_property("CPU", "FULL_DEVICE_NAME"), code)

    def get(self, key: tuple[Any, ...], settings: Mapping[str, Any], build: Callable[[], Any]) -> Any:
        """The compiled graph of this key; ``build`` makes one where there is none."""
        path = self._folder / f"{hashlib.sha256(repr((key, self._where)).encode()).hexdigest()}.blob"
        with suppress(OSError, RuntimeError):  # none yet, or one that this OpenVINO does not take
            compiled = self._core.import_model(io.BytesIO(path.read_bytes()), "CPU", dict(settings))
            path.touch()
            return compiled
        compiled = build()
        with suppress(OSError, QartsrError):
            write_bytes(path, compiled.export_model().getvalue())
            self._trim()
        return compiled

    def _trim(self) -> None:
        files = sorted(self._folder.glob("*.blob"), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > LIMIT:
                path.unlink()
