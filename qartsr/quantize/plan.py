"""What is decided before anything is changed: bits and recipe of every layer, as JSON."""

from __future__ import annotations

from fnmatch import fnmatchcase

from pydantic import Field
from torch import nn

from qartsr.config import Bits
from qartsr.config.base import Config
from qartsr.config.parts import LayerRecipe, MethodConfig
from qartsr.errors import QartsrError
from qartsr.layer import op_of


class LayerPlan(Config):
    """One layer: its full name, bits of weight and input, parts; ``float`` keeps it as it is."""

    name: str
    weight_bits: int = Field(ge=2, le=16)
    input_bits: int = Field(ge=2, le=16)
    recipe: LayerRecipe
    float: bool = False


class Plan(Config):
    """All quantizable layers of a model in the model's own order. Attention's matrix products are not among them."""

    method: str
    bits: str
    layers: tuple[LayerPlan, ...]


def quantizable(model: nn.Module) -> dict[str, nn.Module]:
    """Every convolution and linear layer of ``model.unet`` and ``model.vae`` still in floating point, by full name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and name.startswith(("unet.", "vae."))
    }


def plan(model: nn.Module, method: MethodConfig, bits: Bits) -> Plan:
    """Decide every layer. Raises QartsrError for a pattern without a layer, ValueError for a layer of unknown kind."""
    layers = quantizable(model)
    for module in layers.values():
        op_of(module)
    if getattr(method.layer.input, "granularity", "tensor") != "tensor":
        raise QartsrError("inputs have one range per tensor", "method.layer.input", "set granularity: tensor")
    edge = _matches(method.edge_layers, layers, "method.edge_layers")
    kept = _matches(method.float_layers, layers, "method.float_layers")
    return Plan(
        method=method.name,
        bits=str(bits),
        layers=tuple(
            LayerPlan(
                name=name,
                weight_bits=method.edge_bits if name in edge else bits.weight,
                input_bits=method.edge_bits if name in edge else bits.input,
                recipe=method.layer,
                float=name in kept,
            )
            for name in layers
        ),
    )


def _matches(patterns: tuple[str, ...], layers: dict[str, nn.Module], where: str) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        names = {name for name in layers if fnmatchcase(name, pattern)}
        if not names:
            raise QartsrError(f"no layer matches {pattern!r}", where, "correct the pattern or remove it")
        found |= names
    return found
