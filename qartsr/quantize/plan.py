"""The plan: what happens to every layer, decided and written down before anything is changed."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

from qartsr.config import Bits
from qartsr.config.base import Config
from qartsr.config.parts import LayerRecipe, MethodConfig
from qartsr.errors import QartsrError


class LayerPlan(Config):
    """One layer: its bits and recipe, or kept in floating point."""

    name: str
    weight_bits: int
    input_bits: int
    recipe: LayerRecipe
    kept_float: bool = False


class Plan(Config):
    """All layers of a model, in module order. ``model_dump_json`` and ``model_validate_json`` round-trip."""

    method: str
    bits: str
    layers: tuple[LayerPlan, ...]

    def layer(self, name: str) -> LayerPlan:
        """The plan of one layer; KeyError when it has none."""
        return {layer.name: layer for layer in self.layers}[name]


def quantizable(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Every convolution and linear layer of UNet and VAE, by full name."""
    return {
        name: part
        for name, part in model.named_modules()
        if isinstance(part, nn.Conv2d | nn.Linear) and name.startswith(("unet.", "vae."))
    }


def plan(model: nn.Module, method: MethodConfig, bits: Bits) -> Plan:
    """Decide for every layer. Raises QartsrError for a pattern that matches no layer."""
    names = list(quantizable(model))
    for pattern in (*method.edge_layers, *method.float_layers):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise QartsrError(f"pattern {pattern!r} matches no layer", "method", "correct edge_layers or float_layers")
    layers = tuple(_decide(name, method, bits) for name in names)
    return Plan(method=method.name, bits=str(bits), layers=layers)


def _decide(name: str, method: MethodConfig, bits: Bits) -> LayerPlan:
    edge = any(fnmatchcase(name, pattern) for pattern in method.edge_layers)
    return LayerPlan(
        name=name,
        weight_bits=max(method.edge_bits, bits.weight) if edge else bits.weight,
        input_bits=max(method.edge_bits, bits.input) if edge else bits.input,
        recipe=method.layer,
        kept_float=any(fnmatchcase(name, pattern) for pattern in method.float_layers),
    )
