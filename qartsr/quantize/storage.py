"""Rounding, before a model is saved for good, of all that the package stores in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.models import Backbone
from qartsr.quantize.apply import quant_layers

STORAGE = torch.float16
"""How a package stores skip branches, phi, delta, biases, norms and float layers."""


@torch.no_grad()
def round_for_storage(model: Backbone) -> None:
    """Round in place, so that packing loses nothing: skip, phi, delta, bias and its shift, and all outside QuantLayers.

    Ranges stay fp32; weights and adapters become codes and need no rounding. Raises QartsrError for a value beyond
    the 16-bit range.
    """
    for name, tensor in _stored_in_16_bits(model):
        rounded = tensor.to(STORAGE).to(tensor.dtype)
        if not bool(rounded.isfinite().all()):
            raise QartsrError("has a value that 16 bits cannot hold", name, "train with a lower learning rate")
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
