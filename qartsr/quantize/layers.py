"""The plan becomes structure: float layers are swapped for quantized ones, in place."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn import Parameter

from qartsr.errors import QartsrError
from qartsr.layer import QuantLayer, build_layer
from qartsr.models import Backbone
from qartsr.quantize.plan import Plan
from qartsr.quantize.select import quantizable


def apply(model: Backbone, plan: Plan, names: Iterable[str] | None = None) -> None:
    """Swap the planned layers, or those of them in ``names``; initial values are :func:`initialise`'s work.

    Raises QartsrError for a planned layer the model lacks (or has quantized already), ValueError for a name that is
    not in the plan.
    """
    planned = {layer.name: layer for layer in plan.layers}
    wanted = list(planned if names is None else names)
    layers = quantizable(model)
    for name in wanted:
        if name not in planned:
            raise ValueError(f"{name} is not in the plan")
        entry = planned[name]
        if entry.float:
            continue
        if name not in layers:
            raise QartsrError("the model has no such layer in floating point", name, "use the plan made for this model")
        layer = build_layer(layers[name], name, entry.recipe, entry.weight_bits, entry.input_bits)
        model.set_submodule(name, layer)


def quant_layers(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, QuantLayer]:
    """The quantized layers by full name, in the model's order; with ``names`` only those."""
    wanted = None if names is None else set(names)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, QuantLayer) and (wanted is None or name in wanted)
    }


ROLES = {
    "transform": "transform",
    "skip": "skip",
    "adapter": "adapter",
    "weight_quantizer": "quantizer",
    "input_quantizer": "quantizer",
    "bias_quantizer": "quantizer",
    "rounding": "rounding",
    "alignment": "bias",
}
"""Part of a layer -> role."""


def parameters_by_role(model: Backbone, names: Iterable[str] | None = None) -> dict[str, list[tuple[str, Parameter]]]:
    """Parameters of the quantized layers (or those in ``names``) with their full names; all six roles, some empty."""
    roles: dict[str, list[tuple[str, Parameter]]] = {role: [] for role in ROLES.values()}
    for name, layer in quant_layers(model, names).items():
        for key, parameter in layer.named_parameters():
            roles[ROLES[key.partition(".")[0]]].append((f"{name}.{key}", parameter))
    return roles
