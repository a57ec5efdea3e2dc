"""The only bridge between a layer's parts and training."""

from __future__ import annotations

from collections.abc import Iterable

from torch.nn import Parameter

from qartsr.models import Backbone
from qartsr.quantize.apply import quant_layers

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
