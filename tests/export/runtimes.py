"""The two runtimes that run exported graphs, one thread each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from qartsr.runtime.graphs import exact_products, import_openvino

openvino = import_openvino()


def onnx_runtime(data: bytes, *, optimised: bool = True) -> Callable[[Tensor], Tensor]:
    """ONNX Runtime; without its optimisations it computes node by node, as the graph is written."""
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    (name,) = (each.name for each in session.get_inputs())
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def open_vino(model: Any, precision: str = "f32") -> Callable[[Tensor], Tensor]:
    """OpenVINO on the CPU; ``model``: bytes or a path."""
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, **exact_products()}
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    return lambda x: torch.from_numpy(np.array(compiled({0: x.numpy()})[0]))


def rounding(runtime: str) -> float:
    """Of the largest output: another order of summing; more where OpenVINO sums in fp32 (:func:`exact_products`)."""
    return 4e-5 if runtime == "openvino" and exact_products() else 2e-6


RUNTIMES: dict[str, Callable[[bytes], Callable[[Tensor], Tensor]]] = {
    "onnx runtime, node by node": lambda data: onnx_runtime(data, optimised=False),
    "onnx runtime": onnx_runtime,
    "openvino": open_vino,
}
