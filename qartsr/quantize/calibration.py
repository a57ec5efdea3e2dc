"""One look at the floating-point model's layer inputs: first their ends, then histograms, and patches where asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.files import replacing
from qartsr.layer import LayerOp
from qartsr.models import Backbone
from qartsr.quantize.input_hooks import look_at_inputs
from qartsr.quantize.select import quantizable

_KEYS = ("counts", "maximum", "minimum")
_PATCHES = "patches"


class InputStatistics(NamedTuple):
    """One layer's input, zero padding included. Histograms are per channel because transforms scale channels."""

    minimum: Tensor
    """(C,) float32"""
    maximum: Tensor
    """(C,) float32"""
    counts: Tensor
    """(C, bins) int32: equal bins between the channel's minimum and maximum"""
    patches: Tensor = torch.empty(0)
    """(N, C, k, k) or (N, C) float32: what the weight sees at N random positions; N = 0 where nothing needs them"""

    @property
    def absmax(self) -> Tensor:
        """(C,) largest magnitude."""
        return torch.maximum(self.minimum.abs(), self.maximum.abs())

    def centres(self) -> Tensor:
        """(C, bins) the middle of each bin."""
        bins = self.counts.shape[1]
        middle = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
        low, high = self.minimum.double()[:, None], self.maximum.double()[:, None]
        return (low + (high - low) * middle).float()


@dataclass(frozen=True)
class Statistics:
    """Statistics of a model, by full layer name; tensors on the CPU."""

    layers: dict[str, InputStatistics]

    def __getitem__(self, name: str) -> InputStatistics:
        if name not in self.layers:
            do = "observe the model again, or keep the layer in floating point"
            raise QartsrError("calibration has never seen this layer run", name, do)
        return self.layers[name]

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        tensors = {f"{name}/{key}": getattr(found, key) for name, found in self.layers.items() for key in _KEYS}
        tensors |= {f"{name}/{_PATCHES}": found.patches for name, found in self.layers.items() if len(found.patches)}
        with replacing(path) as temporary:
            save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)


def load_statistics(path: Path) -> Statistics:
    """Read what :meth:`Statistics.save` wrote. Raises QartsrError naming what is missing."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise QartsrError(f"cannot be read ({error})", str(path), "observe the model again") from error
    names = list(dict.fromkeys(key.rpartition("/")[0] for key in tensors))
    for name in names:
        for key in _KEYS:
            if f"{name}/{key}" not in tensors:
                raise QartsrError(f"has no tensor '{name}/{key}'", str(path), "observe the model again")
    keys = (*_KEYS, _PATCHES)
    return Statistics(
        {
            name: InputStatistics(**{k: tensors[f"{name}/{k}"] for k in keys if f"{name}/{k}" in tensors})
            for name in names
        }
    )


_MOST_BINS, _FEWEST_BINS, _BINS_PER_LAYER = 1024, 512, 2**18
_NO_PATCHES: Mapping[str, int] = MappingProxyType({})


@torch.no_grad()
def observe(model: Backbone, batches: Iterable[Tensor], patches: Mapping[str, int] = _NO_PATCHES) -> Statistics:
    """Run ``model(lq)`` over all batches twice and describe the input of every convolution and linear layer.

    Batches are (B, 3, H, W) in [-1, 1]. Layers that never run are left out. Deterministic. ``patches``: how many
    input patches to keep of which layers, see :func:`qartsr.quantize.patches_needed`; equally many of every batch, at
    random positions.
    """
    kept = list(batches)
    ends: dict[str, tuple[Tensor, Tensor]] = {}
    counts: dict[str, Tensor] = {}
    sample = _Sample(model, patches, len(kept))

    def widen(name: str, op: LayerOp, given: Tensor) -> None:
        padded = op.pad(given)
        x = _vectors(op, padded)
        low, high = x.amin(0), x.amax(0)
        if name in ends:
            low, high = torch.minimum(low, ends[name][0]), torch.maximum(high, ends[name][1])
        ends[name] = low, high
        sample.take(name, op, padded)

    def count(name: str, op: LayerOp, given: Tensor) -> None:
        found = _histogram(_vectors(op, op.pad(given)), *ends[name])
        counts[name] = counts[name] + found if name in counts else found

    for look in (widen, count):
        look_at_inputs(model, kept, look)
    return Statistics(
        {
            name: InputStatistics(low.cpu(), high.cpu(), counts[name].cpu(), sample.of(name))
            for name, (low, high) in ends.items()
        }
    )


class _Sample:
    """Patches of the layers in ``wanted``, an equal share of each of ``batches`` calls."""

    def __init__(self, model: Backbone, wanted: Mapping[str, int], batches: int) -> None:
        layers = quantizable(model)
        self._shapes = {name: tuple(layers[name].get_parameter("weight").shape) for name in wanted}
        self._wanted, self._shares = wanted, {name: -(-count // max(batches, 1)) for name, count in wanted.items()}
        self._taken: dict[str, list[Tensor]] = {}

    def take(self, name: str, op: LayerOp, padded: Tensor) -> None:
        if name not in self._wanted:
            return
        taken, shape = self._taken.setdefault(name, []), self._shapes[name]
        digest = hashlib.sha256(f"{name} {len(taken)}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        index = torch.randperm(op.positions(padded, shape), generator=generator)[: self._shares[name]]
        taken.append(op.patches(padded, shape, index.to(padded.device)).float().cpu())

    def of(self, name: str) -> Tensor:
        return torch.cat(self._taken[name])[: self._wanted[name]] if name in self._taken else torch.empty(0)


def _vectors(op: LayerOp, padded: Tensor) -> Tensor:
    """(N, C) float32."""
    x = op.channels_last(padded)
    return x.reshape(-1, x.shape[-1]).float()


def _histogram(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(C, bins) int32 counts of ``x`` (N, C) in equal bins between each channel's ends."""
    channels = x.shape[1]
    bins = max(_FEWEST_BINS, min(_MOST_BINS, _BINS_PER_LAYER // channels))
    width = ((high - low) / bins).clamp_min(torch.finfo(torch.float32).tiny)
    index = ((x - low) / width).long().clamp_(0, bins - 1)
    index += torch.arange(channels, device=x.device) * bins
    return torch.bincount(index.flatten(), minlength=channels * bins).reshape(channels, bins).int()
