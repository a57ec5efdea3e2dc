"""One look at the floating-point model's layer inputs: first their ends, then their histograms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from qartsr.layer import op_of
from qartsr.quantize.plan import quantizable
from qartsr.quantize.statistics import InputStatistics, Statistics

_MOST_BINS, _FEWEST_BINS, _BINS_PER_LAYER = 1024, 512, 2**18


@torch.no_grad()
def observe(model: nn.Module, batches: Iterable[Tensor]) -> Statistics:
    """Run ``model(lq)`` over all batches twice and describe the input of every convolution and linear layer.

    Batches are (B, 3, H, W) in [-1, 1]. Layers that never run are left out. Deterministic.
    """
    kept = list(batches)
    ends: dict[str, tuple[Tensor, Tensor]] = {}
    counts: dict[str, Tensor] = {}

    def widen(name: str, x: Tensor) -> None:
        low, high = x.amin(0), x.amax(0)
        if name in ends:
            low, high = torch.minimum(low, ends[name][0]), torch.maximum(high, ends[name][1])
        ends[name] = low, high

    def count(name: str, x: Tensor) -> None:
        found = _histogram(x, *ends[name])
        counts[name] = counts[name] + found if name in counts else found

    for look in (widen, count):
        _look(model, kept, look)
    return Statistics(
        {name: InputStatistics(low.cpu(), high.cpu(), counts[name].cpu()) for name, (low, high) in ends.items()}
    )


def _look(model: nn.Module, batches: list[Tensor], look: Callable[[str, Tensor], None]) -> None:
    """Run all batches; ``look`` sees each layer's padded input as (N, C) float32. The hooks are gone afterwards."""
    layers = quantizable(model)
    handles = [module.register_forward_pre_hook(_hook(name, module, look)) for name, module in layers.items()]
    try:
        for batch in batches:
            model(batch)
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, module: nn.Module, look: Callable[[str, Tensor], None]) -> Callable[[nn.Module, Any], None]:
    op = op_of(module)

    def hook(_: nn.Module, inputs: Any) -> None:
        x = op.channels_last(op.pad(inputs[0]))
        look(name, x.reshape(-1, x.shape[-1]).float())

    return hook


def _histogram(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(C, bins) int32 counts of ``x`` (N, C) in equal bins between each channel's ends."""
    channels = x.shape[1]
    bins = max(_FEWEST_BINS, min(_MOST_BINS, _BINS_PER_LAYER // channels))
    width = ((high - low) / bins).clamp_min(torch.finfo(torch.float32).tiny)
    index = ((x - low) / width).long().clamp_(0, bins - 1)
    index += torch.arange(channels, device=x.device) * bins
    return torch.bincount(index.flatten(), minlength=channels * bins).reshape(channels, bins).int()
