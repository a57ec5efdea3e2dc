"""What the floating-point model's layers see: extremes and a histogram per input channel. A file, not a hook's memory.

Per channel, because the transform divides channels by phi before the per-tensor quantizer looks at them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qartsr.files import replacing
from qartsr.quantize.plan import quantizable
from qartsr.quantizers import Sample
from qartsr.transforms import Factors

BINS = 128


class LayerStatistics(NamedTuple):
    """Inputs of one layer, per channel."""

    low: Tensor
    """(C,) smallest value"""
    high: Tensor
    """(C,) largest value"""
    counts: Tensor
    """(C, BINS) histogram between ``low`` and ``high``"""

    def absmax(self) -> Tensor:
        """(C,) largest absolute value."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def sample(self, factors: Factors) -> Sample:
        """All channels after (x - shift) / scale, as one weighted sample: bin centres, and the true extremes."""
        width = (self.high - self.low) / BINS
        centres = self.low[:, None] + width[:, None] * (torch.arange(BINS, device=width.device) + 0.5)
        values = torch.cat([centres, self.low[:, None], self.high[:, None]], 1)
        weights = torch.cat([self.counts, torch.ones_like(self.counts[:, :2])], 1)
        scaled = (values - factors.shift.reshape(-1, 1)) / factors.scale.reshape(-1, 1)
        return Sample(scaled.reshape(1, -1), weights.reshape(1, -1))


class Statistics:
    """Statistics of every layer by name."""

    def __init__(self, layers: dict[str, LayerStatistics]) -> None:
        self.layers = layers

    def save(self, path: Path) -> None:
        """One safetensors file, ``NAME/low``, ``NAME/high``, ``NAME/counts``."""
        tensors = {
            f"{name}/{field}": getattr(layer, field).cpu().contiguous()
            for name, layer in self.layers.items()
            for field in LayerStatistics._fields
        }
        with replacing(path) as temporary:
            save_file(tensors, temporary)

    @staticmethod
    def load(path: Path) -> Statistics:
        """Read what :meth:`save` wrote."""
        tensors = load_file(path)
        names = dict.fromkeys(key.rsplit("/", 1)[0] for key in tensors)
        return Statistics(
            {n: LayerStatistics(*(tensors[f"{n}/{field}"] for field in LayerStatistics._fields)) for n in names}
        )


def observe(model: nn.Module, batches: Sequence[Tensor]) -> Statistics:
    """Run the model twice over ``batches`` of network inputs: first for extremes, then for histograms."""
    layers = quantizable(model)
    low: dict[str, Tensor] = {}
    high: dict[str, Tensor] = {}

    def extremes(name: str, x: Tensor) -> None:
        smallest, largest = x.amin(0), x.amax(0)
        low[name] = torch.minimum(low[name], smallest) if name in low else smallest
        high[name] = torch.maximum(high[name], largest) if name in high else largest

    _watch(model, layers, batches, extremes)
    counts = {name: torch.zeros(len(low[name]), BINS, device=low[name].device) for name in low}

    def histogram(name: str, x: Tensor) -> None:
        width = (high[name] - low[name]).clamp_min(1e-12) / BINS
        bins = ((x - low[name]) / width).long().clamp(0, BINS - 1)
        flat = bins + BINS * torch.arange(len(width), device=x.device)
        counts[name] += torch.bincount(flat.flatten(), minlength=counts[name].numel()).view_as(counts[name])

    _watch(model, layers, batches, histogram)
    return Statistics({name: LayerStatistics(low[name], high[name], counts[name]) for name in layers if name in low})


def _watch(
    model: nn.Module,
    layers: dict[str, nn.Conv2d | nn.Linear],
    batches: Iterable[Tensor],
    see: Callable[[str, Tensor], None],
) -> None:
    """Call ``see(name, rows)`` with every layer's input as (rows, C)."""
    with ExitStack() as stack, torch.no_grad():
        for name, layer in layers.items():

            def hook(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                x = inputs[0]
                see(name, x.movedim(1, -1).flatten(0, -2) if isinstance(module, nn.Conv2d) else x.flatten(0, -2))

            stack.callback(layer.register_forward_pre_hook(hook).remove)
        for batch in batches:
            model(batch)
