"""Graphs of one model, compiled on demand for a part, a size and a mode of the norms, and run image by image."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qartsr.engines.openvino_cache import Cache, fingerprint
from qartsr.engines.openvino_norms import GraphNorms, Mode
from qartsr.export import PARTS, build_part, import_openvino, serialized
from qartsr.models import Backbone

_KEPT = 6
"""Compiled graphs in memory: three parts in two modes. Each holds its part's weights, one byte per code."""

_POSITIONS = 10_000
"""Of a latent, above which OpenVINO 2026.4's attention is slower in bf16 than in fp32: 1.1 times as fast at 9,216,
0.7 at 16,384 (benchmarks/cpu_attention.py; AVX-512 with bf16). There it is most of what the denoiser costs."""


class Graphs:
    """Compiled parts of ``model``.

    Compiling needs seconds, once per size and mode: what was compiled is kept in the user's cache.
    """

    def __init__(self, model: Backbone, norms: GraphNorms) -> None:
        self._model, self._norms = model, norms
        self._core = import_openvino().Core()
        self._print = fingerprint(model)
        self._cache = Cache(self._core)
        self._compiled: OrderedDict[tuple[str, str, int, int, int], Any] = OrderedDict()

    def run(self, part: str, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs of a part for ``x`` (B, C, h, w), each (B, ...)."""
        each = [self._run_one(part, image) for image in x.float().contiguous().split(1)]
        return tuple(torch.cat(outputs) for outputs in zip(*each, strict=True))

    def _run_one(self, part: str, x: Tensor) -> tuple[Tensor, ...]:
        mode = self._norms.mode()
        request = self._request(part, mode, (x.shape[2], x.shape[3]))
        compiled = request.get_compiled_model()
        shapes = {name: tuple(port.shape) for port in compiled.inputs for name in port.get_names()}
        found = request.infer({"input": x.numpy(), **self._norms.feed(shapes)})
        outputs = {name: value for port, value in found.items() for name in port.get_names()}
        self._norms.tell(outputs)
        return tuple(torch.from_numpy(np.array(outputs[name])) for name in PARTS[part].outputs)

    def _request(self, part: str, mode: Mode, size: tuple[int, int]) -> Any:
        key = (part, mode.name, *size, torch.get_num_threads())
        if key not in self._compiled:
            while len(self._compiled) >= _KEPT:
                self._compiled.popitem(last=False)
            self._compiled[key] = self._compile(part, mode, size).create_infer_request()
        self._compiled.move_to_end(key)
        return self._compiled[key]

    def _compile(self, part: str, mode: Mode, size: tuple[int, int]) -> Any:
        settings = self._settings(part, mode, size)
        key = (self._print, part, mode.name, *size, *settings.items())

        def build() -> Any:
            graph = serialized(build_part(self._model, part, size, mode.writer))
            return self._core.compile_model(self._core.read_model(graph), "CPU", settings)

        return self._cache.get(key, settings, build)

    def _settings(self, part: str, mode: Mode, size: tuple[int, int]) -> dict[str, Any]:
        """One image at a time, with torch's threads; bf16 where the CPU computes in it and gains by it."""
        able = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        gains = part != "denoiser" or size[0] * size[1] <= _POSITIONS
        return {
            "INFERENCE_PRECISION_HINT": "bf16" if able and gains and not mode.exact else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
