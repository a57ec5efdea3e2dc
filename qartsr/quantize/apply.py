"""Swap layers for quantized ones, give them their initial values, and say which of their parameters play which role."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn import Parameter

from qartsr.branches import SVD
from qartsr.errors import QartsrError
from qartsr.layer import QuantLayer, roles
from qartsr.quantize.plan import Plan, quantizable
from qartsr.quantize.statistics import Statistics
from qartsr.quantizers import tensor_sample


def quantized(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, QuantLayer]:
    """The quantized layers of a model by full name; ``names`` keeps only these."""
    wanted = None if names is None else set(names)
    layers = {name: part for name, part in model.named_modules() if isinstance(part, QuantLayer)}
    return {name: part for name, part in layers.items() if wanted is None or name in wanted}


def apply(model: nn.Module, plan: Plan, names: Sequence[str] | None = None) -> None:
    """Replace the planned layers (or only ``names``) by uninitialised :class:`QuantLayer`, in place.

    Raises QartsrError when the plan names a layer the model does not have.
    """
    layers = quantizable(model)
    for layer in plan.layers:
        if layer.kept_float or (names is not None and layer.name not in names):
            continue
        if layer.name not in layers:
            raise QartsrError(f"the plan's layer {layer.name!r} is not in the model", "plan", "use the model it was made for")
        parent, _, child = layer.name.rpartition(".")
        original = layers[layer.name]
        swapped = QuantLayer(original, layer.recipe, layer.weight_bits, layer.input_bits, layer.name)
        setattr(model.get_submodule(parent), child, swapped)


def initialise(model: nn.Module, statistics: Statistics, names: Sequence[str] | None = None) -> None:
    """The only writer of initial values: transform, branches, then ranges of weight, input and bias."""
    for name, layer in quantized(model, names).items():
        seen = statistics.layers[name]
        layer.transform.calibrate(seen.absmax(), layer.weight)
        factors = layer.transform.factors()
        layer.skip.calibrate(layer.weight, factors.scale)
        layer.adapter.calibrate(layer.weight, factors.scale)
        with torch.no_grad():
            layer.weight_quantizer.calibrate(tensor_sample(layer.scaled_weight(), layer.weight_quantizer.granularity))
            layer.input_quantizer.calibrate(seen.sample(factors))
            layer.bias_quantizer.calibrate(tensor_sample(layer.total_bias(), "tensor"))


def parameters_by_role(
    model: nn.Module, names: Sequence[str] | None = None
) -> dict[str, list[tuple[str, Parameter]]]:
    """Trainable parameters by role (transform, skip, adapter, quantizer) with full names: the bridge to training."""
    found: dict[str, list[tuple[str, Parameter]]] = {"transform": [], "skip": [], "adapter": [], "quantizer": []}
    full = {id(parameter): name for name, parameter in model.named_parameters()}
    for layer in quantized(model, names).values():
        for role, parts in roles(layer).items():
            found[role] += [(full[id(p)], p) for part in parts for p in part.parameters()]
    return found


def round_for_storage(model: nn.Module) -> None:
    """Round to 16 bits what an artifact stores in 16 bits (L1, L2), so that packing loses nothing."""
    with torch.no_grad():
        for layer in quantized(model).values():
            if isinstance(layer.skip, SVD):
                for factor in (layer.skip.left, layer.skip.right):
                    factor.copy_(factor.half().float())
