"""Between a plan, the header of its package, and the model that a header describes, without memory for its tensors."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import ValidationError

from qartsr.artifact.header import Header, LayerEntry
from qartsr.artifact.spec import LayerSpec
from qartsr.config.parts import LayerRecipe
from qartsr.errors import QartsrError, dotted, short
from qartsr.layer import op_of
from qartsr.models import Backbone, place_constants, skeleton
from qartsr.packing.packed_layer import PackedLayer
from qartsr.quantize import LayerPlan, Plan, quantizable

_LARGEST, _DEEPEST, _NESTED = 1 << 16, 64, 8
_AGAIN = "fetch or make the package again"


def structure(header: Header, where: str) -> Backbone:
    """The model with packed layers, every tensor on the meta device.

    Raises QartsrError when architecture and layers do not fit each other, or ask for absurd sizes.
    """
    model = unpacked(header, where)
    with torch.device("meta"):
        _fold(model, header, where)
        _swap(model, header, where)
    return model


def unpacked(header: Header, where: str) -> Backbone:
    """The floating-point model that was quantized and folded, on the meta device. Raises QartsrError."""
    _bounded(header.architecture, where)
    recipes_of(header, where)
    with torch.device("meta"):
        try:
            return skeleton(header.architecture)
        except Exception as error:  # whatever diffusers makes of a nonsensical description
            reason = " ".join(str(error).split())[:200]
            raise QartsrError(f"describes an unusable model ({reason})", where, _AGAIN) from error


def _bounded(value: Any, where: str, key: str = "architecture", depth: int = 0) -> None:
    """No number, list or nesting that would take forever to build or overflow a size."""
    _limit(depth, _NESTED, where, "nesting")
    if isinstance(value, dict | list):
        _limit(len(value), 4 * _DEEPEST, where, key)
        for name, inner in value.items() if isinstance(value, dict) else ((key, inner) for inner in value):
            _bounded(inner, where, str(name), depth + 1)
    elif isinstance(value, int | float):
        _limit(value, _DEEPEST if key.endswith("_per_block") else _LARGEST, where, key)


def _limit(value: float, largest: int, where: str, key: str) -> None:
    if not abs(value) <= largest:
        raise QartsrError(f"has the absurd {key} {value}", where, _AGAIN)


def _fold(model: Backbone, header: Header, where: str) -> None:
    """Constants in the place of what the header says is folded: all that can be, or nothing."""
    if not header.constants:
        return
    _bounded({name: list(shape) for name, shape in header.constants.items()}, where, "constants")
    tokens = max((shape[1] for shape in header.constants.values() if len(shape) == 3), default=0)
    expected = model.constant_shapes(tokens)
    for name in sorted(expected.keys() | header.constants.keys()):
        if header.constants.get(name) != expected.get(name):
            problem = f"has shape {header.constants.get(name)}, not {expected.get(name)}"
            raise QartsrError(f"constant {short(name)} {problem}", where, _AGAIN)
    place_constants(model, {name: torch.empty(shape) for name, shape in expected.items()})


def _swap(model: Backbone, header: Header, where: str) -> None:
    layers = quantizable(model)
    for name, spec in header.specs().items():
        if name not in layers:
            raise QartsrError(f"layer {short(name)} is not in its model", where, _AGAIN)
        layer = layers[name]
        shape = tuple(layer.get_parameter("weight").shape)
        if spec.shape != shape:
            raise QartsrError(f"layer {short(name)} has shape {spec.shape}, not {shape}", where, _AGAIN)
        model.set_submodule(name, PackedLayer(op_of(layer), spec))


def plan_of(header: Header) -> Plan:
    """The plan the model was quantized by. Raises QartsrError for a recipe that is none."""
    recipes = recipes_of(header, "the package")
    layers = tuple(
        LayerPlan(
            name=entry.name,
            weight_bits=entry.weight_bits,
            input_bits=entry.input_bits,
            recipe=recipes[entry.recipe],
            float=entry.float,
        )
        for entry in header.layers
    )
    return Plan(method=header.method, bits=header.bits, layers=layers)


def recipes_of(header: Header, where: str) -> tuple[LayerRecipe, ...]:
    """The recipes. Raises QartsrError for one that is none."""
    try:
        return tuple(LayerRecipe.model_validate(recipe) for recipe in header.recipes)
    except ValidationError as error:
        first = error.errors()[0]
        key = dotted(("recipes", *first["loc"]))
        what = f"has an unusable header ({key}: {first['msg']})"
        raise QartsrError(what, where, "fetch or make the package again") from error


def entries(plan: Plan, specs: dict[str, LayerSpec]) -> tuple[tuple[dict[str, Any], ...], tuple[LayerEntry, ...]]:
    """The plan with each recipe told once, and what is stored of each layer."""
    recipes = list(dict.fromkeys(layer.recipe for layer in plan.layers))
    layers = tuple(
        LayerEntry(
            name=layer.name,
            recipe=recipes.index(layer.recipe),
            weight_bits=layer.weight_bits,
            input_bits=layer.input_bits,
            float=layer.float,
            stored=specs.get(layer.name),
        )
        for layer in plan.layers
    )
    return tuple(recipe.model_dump(mode="json") for recipe in recipes), layers
