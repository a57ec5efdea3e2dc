"""A quantized model on disk: its plan, and every tensor but the original weights, which the float model has.

A folded model (:func:`qartsr.models.fold_constants`) is stored with its constants, and loaded folded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from qartsr.errors import DivergedError, QartsrError, dotted
from qartsr.files import read_json, replacing, write_json
from qartsr.models import Backbone, constants, is_folded, place_constants
from qartsr.quantize.layers import apply, quant_layers
from qartsr.quantize.plan import Plan

STORAGE = torch.float16
"""How a package stores skip branches, phi, delta, biases, norms and float layers."""


@torch.no_grad()
def round_for_storage(model: Backbone) -> None:
    """Round in place, so that packing loses nothing: skip, phi, delta, bias and its shift, and all outside QuantLayers.

    Ranges stay fp32; weights and adapters become codes and need no rounding. Raises DivergedError for a value
    beyond the 16-bit range.
    """
    for name, tensor in _stored_in_16_bits(model):
        rounded = tensor.to(STORAGE).to(tensor.dtype)
        if not bool(rounded.isfinite().all()):
            raise DivergedError("has a value that 16 bits cannot hold", name, "train with a lower learning rate")
        tensor.copy_(rounded)


def _stored_in_16_bits(model: Backbone) -> Iterator[tuple[str, Tensor]]:
    layers = quant_layers(model)
    inside = tuple(f"{name}." for name in layers)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point() and not name.startswith(inside):
            yield name, tensor
    for name, layer in layers.items():
        if layer.bias is not None:
            yield f"{name}.bias", layer.bias
        for part in ("skip", "transform", "alignment"):
            for key, parameter in getattr(layer, part).named_parameters():
                yield f"{name}.{part}.{key}", parameter


_DIGEST = "original_weights"


def save_state(model: Backbone, plan: Plan, folder: Path) -> None:
    """Write plan.json and state.safetensors. Raises ValueError unless every planned layer is quantized or folded."""
    layers, folded = quant_layers(model), constants(model)
    missing = [
        layer.name
        for layer in plan.layers
        if not layer.float and layer.name not in layers and not is_folded(layer.name, folded)
    ]
    if missing:
        raise ValueError(f"{missing[0]} is planned but not quantized")
    tensors = {name: value.detach().cpu().contiguous() for name, value in _state(model).items()}
    with replacing(folder / "state.safetensors") as temporary:
        # one metadata key only: the order of several is not deterministic
        save_file(tensors, temporary, metadata={_DIGEST: _digest(model)})
    write_json(folder / "plan.json", plan.model_dump(mode="json"))


def load_state(model: Backbone, folder: Path) -> Plan:
    """Quantize the float ``model`` by the stored plan and load its values strictly; returns the plan.

    Raises QartsrError naming the layer or tensor that is missing, unknown, of another shape, or of another float model.
    """
    plan = load_plan(folder / "plan.json")
    apply(model, plan)
    path = folder / "state.safetensors"
    tensors, digest = _read(path)
    _fold(model, tensors)
    expected = _state(model)
    for name in [*expected, *tensors]:
        _check(name, expected, tensors, path)
    if digest != _digest(model):
        raise QartsrError("was made from another floating-point model", str(path), "use the model it was trained from")
    with torch.no_grad():
        for name, value in expected.items():
            value.copy_(tensors[name])
    return plan


def load_plan(path: Path) -> Plan:
    """Read a plan. Raises QartsrError naming the first faulty key."""
    try:
        return Plan.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = dotted(first["loc"])
        raise QartsrError(f"is not a plan ({key}: {first['msg']})", str(path), "run the stage that makes it") from error


def _fold(model: Backbone, tensors: dict[str, Tensor]) -> None:
    """Make room for the constants among the stored ``tensors``."""
    stored = {name: tensors[f"{name}.value"] for name in model.constant_shapes(0) if f"{name}.value" in tensors}
    if stored:
        place_constants(model, {name: torch.empty_like(value) for name, value in stored.items()})


def _state(model: Backbone) -> dict[str, Tensor]:
    """Every persistent tensor except the original weights of quantized layers; shares memory with the model."""
    originals = {f"{name}.weight" for name in quant_layers(model)}
    return {name: value for name, value in model.state_dict().items() if name not in originals}


def _check(name: str, expected: dict[str, Tensor], tensors: dict[str, Tensor], path: Path) -> None:
    do = "use the plan, state and model of one run"
    if name not in tensors:
        raise QartsrError(f"has no tensor '{name}'", str(path), do)
    if name not in expected:
        raise QartsrError(f"has a tensor '{name}' that the model lacks", str(path), do)
    if tensors[name].shape != expected[name].shape:
        shapes = f"{tuple(tensors[name].shape)}, not {tuple(expected[name].shape)}"
        raise QartsrError(f"tensor '{name}' has shape {shapes}", str(path), do)


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    try:
        with safe_open(path, framework="pt") as handle:
            digest = (handle.metadata() or {}).get(_DIGEST, "")
            return {name: handle.get_tensor(name) for name in handle.keys()}, digest  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise QartsrError(f"cannot be read ({error})", str(path), "run the stage that makes it") from error


def _digest(model: Backbone) -> str:
    """SHA-256 of the original weights of all quantized layers, in the model's order."""
    digest = hashlib.sha256()
    for name, layer in quant_layers(model).items():
        digest.update(name.encode())
        digest.update(layer.weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
