"""The fast engine of CPUs: OpenVINO runs convolutions and matrix products of codes in int8, all else in bf16 or fp32.

Encoder, denoiser and decoder are graphs of their own (:mod:`qartsr.export`), compiled for the size of each input and
kept in the user's cache; the model that runs is one whose three verbs are those graphs. Codes of 2 to 8 bits all run as
int8: fewer bits save bytes of the package, not time.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from qartsr.artifact.graphs import Packed, unpacked, with_constants
from qartsr.artifact.values import Values
from qartsr.export.skeleton import skeleton
from qartsr.models import Backbone, Facts, OneStepSR, Step, architecture
from qartsr.models.fusion import Fusion
from qartsr.models.moments import described
from qartsr.packing import PackedLayer
from qartsr.runtime.graphs import Graphs
from qartsr.runtime.moments import GroupNorm
from qartsr.runtime.norms import GraphNorms, Mode
from qartsr.runtime.package import sides_of

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
        from qartsr.export import inexpressible  # onnx: there only with its extra

        reason = next((found for layer in layers if (found := inexpressible(layer))), None)
        return reason and f"no graph expresses one of its layers: {reason}"

    def prepare(self, model: Backbone) -> OneStepSR:
        """The model's graphs, which are made when the first input of a size comes."""
        from qartsr.engines.openvino import Compiled  # openvino and onnx: there only with their extra

        return Compiled(model)


class Compiled(OneStepSR):
    """``model`` at its own timestep and prompt, which are constants of the graphs.

    The graphs keep its packed layers, for sizes still to come.
    """

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.align = model.align
        self._facts, self._step, self._fusion = model.facts, model.step, model.fusion
        source = ModelGraphs(model)
        self._norms = GraphNorms(source.group_norms)
        self._graphs = Graphs(source, self._norms, torch.get_num_threads())

    @property
    def facts(self) -> Facts:
        """Those of the model."""
        return self._facts

    @property
    def step(self) -> Step:
        """That of the model."""
        return self._step

    @property
    def fusion(self) -> Fusion:
        """That of the model, which runs in torch."""
        return self._fusion

    def norms(self) -> GraphNorms:
        """Of all three graphs; :mod:`qartsr.upscale.modules` finds them here."""
        return self._norms

    def posterior(self, lq: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) image -> mean and log-variance of the raw latent, (B, C, h, w) each."""
        self.facts.load.demand_fits(*lq.shape[2:])
        mean, logvar = _run(self._graphs, "encoder", lq)
        return mean, logvar

    def predict(self, z_l: Tensor) -> Tensor:
        """(B, C, h, w) scaled latent -> what the denoiser predicts."""
        (predicted,) = _run(self._graphs, "denoiser", z_l)
        return predicted

    def reconstruct(self, raw: Tensor) -> Tensor:
        """(B, C, h, w) raw latent -> image."""
        (image,) = _run(self._graphs, "decoder", raw)
        return image


class ModelGraphs:
    """Graphs of a packed model of modules; see :class:`qartsr.runtime.graphs.GraphSource`."""

    def __init__(self, model: Backbone) -> None:
        self._model = model
        self.identity = fingerprint(model)

    @cached_property
    def _packed(self) -> Packed:
        return unpacked(skeleton(self._model))

    @cached_property
    def group_norms(self) -> Mapping[str, GroupNorm]:
        """By name."""
        found = self._model.named_modules()
        return {name: described(part) for name, part in found if isinstance(part, nn.GroupNorm)}

    def graph(self, part: str, mode: Mode) -> bytes:
        """ONNX."""
        facts, pieces = self._packed
        layers = {name: layer.spec for name, layer in self._model.named_modules() if isinstance(layer, PackedLayer)}
        value = Values(layers, {name: tensor.cpu().numpy() for name, tensor in self._model.state_dict().items()})
        chosen = facts.graphs[part][mode]
        constants = {recipe: value(recipe) for recipe in chosen.recipes}
        return with_constants(b"".join(pieces[place] for place in chosen.pieces), constants)

    def sides(self, name: str, size: tuple[int, int]) -> tuple[int, ...]:
        """Of a norm's input."""
        return sides_of(self._packed.facts, name, size)


def fingerprint(model: Backbone) -> str:
    """Hex SHA-256 of all that a packed model computes with."""
    layers = {name: repr(part.op) for name, part in model.named_modules() if isinstance(part, PackedLayer)}
    digest = hashlib.sha256(json.dumps([architecture(model), layers], sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _run(graphs: Graphs, part: str, x: Tensor) -> tuple[Tensor, ...]:
    """The outputs of a part for ``x`` (B, C, h, w), each (B, ...)."""
    images = np.ascontiguousarray(x.float().cpu().numpy())
    each = [graphs.run(part, image[None]) for image in images]
    return tuple(torch.from_numpy(np.concatenate(outputs)) for outputs in zip(*each, strict=True))
