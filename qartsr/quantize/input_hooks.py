"""Hooks on every layer of a floating-point model that is run on some batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from qartsr.layer import LayerOp, op_of
from qartsr.models import Backbone
from qartsr.quantize.select import quantizable

Look = Callable[[str, LayerOp, Tensor], None]
"""Name of a layer, its operation, its input as it comes: not padded."""


def look_at_inputs(model: Backbone, batches: Iterable[Tensor], look: Look) -> None:
    """Run ``model`` on all batches (B, 3, H, W); ``look`` sees every layer's input. The hooks are gone afterwards."""
    handles = [
        module.register_forward_pre_hook(_hook(name, op_of(module), look))
        for name, module in quantizable(model).items()
    ]
    try:
        for batch in batches:
            model(batch)
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, op: LayerOp, look: Look) -> Callable[[nn.Module, Any], None]:
    def hook(_: nn.Module, inputs: Any) -> None:
        look(name, op, inputs[0])

    return hook
