"""The fast engine of CPUs: OpenVINO runs convolutions and matrix products of codes in int8, all else in bf16 or fp32.

Encoder, denoiser and decoder are graphs of their own (:mod:`qartsr.export`), compiled for the size of each input and
kept in the user's cache. Codes of 2 to 8 bits all run as int8: fewer bits save bytes of the package, not time.
"""

from __future__ import annotations

import importlib.util
from typing import ClassVar

import torch

from qartsr.models import Backbone, OneStepSR
from qartsr.packing import PackedLayer
from qartsr.packing.supports import unsupported_reason

_NEEDED = ("openvino", "onnx")


class OpenVINO:
    """Encoder, denoiser and decoder of a packed model as compiled graphs."""

    name: ClassVar[str] = "openvino"

    def refusal(self, model: Backbone, device: torch.device) -> str | None:
        """Where it cannot run: elsewhere than on a CPU, without openvino and onnx, on a model that is not packed."""
        if device.type != "cpu":
            return "it runs on CPUs only"
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            return f"{' and '.join(missing)} not installed; pip install 'qartsr[openvino]'"
        layers = [part for part in model.modules() if isinstance(part, PackedLayer)]
        if not layers:
            return "the model is not packed"
        if not model.graphs:
            return "no graph expresses a diffusion transformer yet"
        from qartsr.export import GRAPHS  # onnx: there only with its extra

        reason = next((found for layer in layers if (found := unsupported_reason(layer, GRAPHS))), None)
        return reason and f"no graph expresses one of its layers: {reason}"

    def prepare(self, model: Backbone) -> OneStepSR:
        """The model's graphs, which are made when the first input of a size comes."""
        from qartsr.engines.openvino_parts import Compiled  # openvino and onnx: there only with their extra

        return Compiled(model)
