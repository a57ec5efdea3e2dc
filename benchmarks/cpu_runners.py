"""The contestants of ``benchmarks.cpu``: a part of the model as a function of its input."""

from __future__ import annotations

import gc
import io
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import openvino
import torch
from torch import Tensor

from benchmarks.random_package import RandomPackage, random_package
from qartsr.config import load_params
from qartsr.engines.openvino import OpenVINO
from qartsr.export.trace import Decoder, Denoiser, Encoder
from qartsr.models import OneStepSR
from qartsr.packing import PackedLayer
from qartsr.packing.packed_layer import NoLowRank
from qartsr.synthetic import blank, random_tensor, shapes

PARTS = ("encoder", "denoiser", "decoder")
BITS = ("w4a4", "w3a3", "w2a2")
GROUPS = {
    "torch": ("torch fp32", "torch bf16", "openvino fp32", "ours w4a4"),
    "int8": ("openvino bf16", "openvino w8a8", *(f"ours {bits}" for bits in BITS)),
    "simulated": ("simulated w4a4", "ours w4a4"),
    "branch": ("bare w4a4", "ours w4a4"),
    "winograd": ("openvino fp32", "plain w4a4", "few w4a4", "few w2a2"),
}
Run = Callable[[Tensor], Tensor]
_CLASSES: dict[str, Any] = {"encoder": Encoder, "denoiser": Denoiser, "decoder": Decoder}
_CONFIGS = Path(__file__).parent.parent / "configs"


class Bench:
    """Builds contestants for one architecture and size."""

    def __init__(self, described: dict[str, Any], arch: str, size: int) -> None:
        self._described, self._size = described, size
        params = load_params(_CONFIGS / f"{arch}.yaml")
        self._method = params.method.planned(params.common)
        self._blank = blank(described)
        self.peer_bytes = 0

    def package(self, bits: str) -> RandomPackage:
        """Our model at ``bits``."""
        return random_package(self._described, self._method, bits)

    def input(self, part: str) -> Tensor:
        """Normal noise of the part's size."""
        side, channels = self._size, 3
        if part != "encoder":
            side, channels = side // self._blank.facts.factor, self._blank.facts.latents
        return torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0))

    def build(self, group: str, part: str) -> dict[str, Run]:
        """The contestants of a group; what they do not share is released with them."""
        runs: dict[str, Run] = {}
        for name in GROUPS[group]:
            kind, _, precision = name.partition(" ")
            build: dict[str, Callable[[str, str], Run]] = {
                "torch": self._torch,
                "openvino": self._openvino,
                "simulated": self._simulated,
                "ours": self._ours,
                "bare": self._bare,
                "plain": partial(self._kernel, "0"),
                "few": partial(self._kernel, "1"),
            }
            print(f"building {name}, {part}", flush=True)
            runs[name] = build[kind](precision, part)
            gc.collect()
        return runs

    def _float(self, part: str) -> OneStepSR:
        """The floating-point model with the weights of one part; the rest is on the meta device."""
        model = blank(self._described)
        for prefix, component in ((f"{name}.", part) for name, part in model.named_parts().items()):
            if (prefix == "unet.") == (part == "denoiser"):
                state = {name: random_tensor(prefix + name, shape, 0) for name, shape in shapes(component).items()}
                component.load_state_dict(state, assign=True)
        model.context = random_tensor("context", tuple(model.context.shape), 0)
        return model.eval().requires_grad_(False)

    def _torch(self, precision: str, part: str) -> Run:
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        module = _CLASSES[part](self._float(part)).to(dtype=dtype, memory_format=torch.channels_last)

        def run(x: Tensor) -> Tensor:
            found: Tensor = module(x.to(dtype).contiguous(memory_format=torch.channels_last))[0]
            return found

        return run

    def _openvino(self, precision: str, part: str) -> Run:
        """Made by another process and handed over as files: converting and NNCF need several times the weights."""
        hint = "f32" if precision == "fp32" else "bf16"
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        with TemporaryDirectory() as folder, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            path = Path(folder) / "peer.xml"
            size = pool.submit(_write_peer, self, precision, part, path).result()
            self.peer_bytes += size if precision == "w8a8" else 0
            request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
        return partial(_infer, request)

    def write_peer(self, precision: str, part: str, path: Path) -> int:
        """OpenVINO's own conversion of the floating-point part; returns the bytes of its constants."""
        x = self.input(part)
        graph = openvino.convert_model(_CLASSES[part](self._float(part)), example_input=x, input=[tuple(x.shape)])
        if precision == "w8a8":
            graph = _quantized(graph, x)
        openvino.save_model(graph, path, compress_to_fp16=precision == "bf16")
        return path.with_suffix(".bin").stat().st_size

    def _simulated(self, bits: str, part: str) -> Run:
        return _part_of(self.package(bits).model, part)

    def _ours(self, bits: str, part: str) -> Run:
        return _part_of(OpenVINO().prepare(self.package(bits).model), part)

    def _kernel(self, wanted: str, bits: str, part: str) -> Run:
        """Ours with OpenVINO's convolutions alone, or with the kernel of few bits wherever it fits."""
        with patch.dict(os.environ, QARTSR_WINOGRAD=wanted):
            return _part_of(OpenVINO().prepare(self.package(bits).model), part)

    def _bare(self, bits: str, part: str) -> Run:
        """Ours without the low-rank branch L1 L2 x."""
        model = self.package(bits).model
        for layer in model.modules():
            if isinstance(layer, PackedLayer):
                layer.skip = NoLowRank()
        return _part_of(OpenVINO().prepare(model), part)


def _infer(request: Any, x: Tensor) -> Tensor:
    return torch.from_numpy(np.array(request.infer([x.numpy()])[0]))


def _part_of(model: OneStepSR, part: str) -> Run:
    calls: dict[str, Run] = {
        "encoder": lambda x: model.posterior(x)[0],
        "denoiser": model.predict,
        "decoder": model.reconstruct,
    }
    return calls[part]


def _write_peer(bench: Bench, precision: str, part: str, path: Path) -> int:
    return bench.write_peer(precision, part, path)


def _quantized(graph: Any, x: Tensor) -> Any:
    import nncf

    advanced = nncf.AdvancedQuantizationParameters(disable_bias_correction=True)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return nncf.quantize(
            graph,
            nncf.Dataset([x.numpy()]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=1,
            advanced_parameters=advanced,
        )
