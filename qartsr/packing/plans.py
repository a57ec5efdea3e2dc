"""Between the plan of a quantized model and the header of its package."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from qartsr.artifact.header import Header, LayerEntry
from qartsr.artifact.spec import LayerSpec
from qartsr.config.parts import LayerRecipe
from qartsr.errors import QartsrError
from qartsr.quantize import LayerPlan, Plan


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
        key = ".".join(str(part) for part in ("recipes", *first["loc"]))
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
