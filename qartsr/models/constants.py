"""With one prompt and one timestep, part of a network is a constant: computed once and put in the layers' place.

Which modules these are is the backbone's knowledge (:meth:`Backbone.constant_shapes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qartsr.models.interface import Backbone


class Constant(nn.Module):
    """Gives ``value`` (1, ...) once per image of the batch, whatever it is asked. A part of the state dict."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        """``value`` as (B, ...), without a copy; of ``x`` only the batch size B counts."""
        return self.value.expand(x.shape[0], *self.value.shape[1:])


def place_constants(model: Backbone, values: Mapping[str, Tensor]) -> None:
    """Put constants, (1, ...) each, in the place of the modules that made them; the prompt shrinks to no tokens."""
    for name, value in values.items():
        model.set_submodule(name, Constant(value))
    model.context = model.context[:, :0].clone()


def constants(model: nn.Module) -> dict[str, Constant]:
    """The constants of a folded model by full name; empty for any other."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Constant)}


@torch.no_grad()
def fold_constants(model: Backbone) -> None:
    """Compute all constants with the model's own layers, quantized or not, and put them in place; once is enough.

    The outputs stay the same up to the order of sums: a matrix product of one prompt may be summed in another order
    than that of a batch. Training cannot go on behind it, for the layers are gone.
    """
    shapes, found = model.constant_shapes(model.context.shape[1]), dict[str, Tensor]()
    if constants(model) or not shapes:
        return

    def record(name: str) -> Any:
        kept = tuple(slice(length) for length in shapes[name])
        return lambda module, inputs, output: found.update({name: output[kept].clone()})

    handles = [model.get_submodule(name).register_forward_hook(record(name)) for name in shapes]
    try:
        model.predict(model.context.new_zeros(1, model.facts.latents, model.granule, model.granule))
    finally:
        for handle in handles:
            handle.remove()
    place_constants(model, {name: found[name] for name in shapes})
