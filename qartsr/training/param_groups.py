"""What RPQ and ET share: the trainable parts of a quantized model by role, and their values as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qartsr.config.training import RoleRates
from qartsr.models import Backbone
from qartsr.quantize import parameters_by_role
from qartsr.training.optimizer import Group


def groups(model: Backbone, rates: RoleRates, scale: float, layers: Sequence[str] | None = None) -> list[Group]:
    """One group per role, with that role's learning rate. ``layers``: only these quantized layers."""
    by_role = parameters_by_role(model, layers)
    return [Group(parameters, getattr(rates, role) * scale) for role, parameters in by_role.items()]


def values(model: Backbone) -> dict[str, Tensor]:
    """``value/NAME`` of every trainable value, trained at this moment or not."""
    return {
        f"value/{name}": parameter.detach()
        for parameters in parameters_by_role(model).values()
        for name, parameter in parameters
    }


def put_back(model: Backbone, tensors: dict[str, Tensor]) -> None:
    """Restore what :func:`values` returned, names and shapes alike."""
    with torch.no_grad():
        for parameters in parameters_by_role(model).values():
            for name, parameter in parameters:
                parameter.copy_(tensors[f"value/{name}"])
