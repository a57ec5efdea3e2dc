"""What calibration saw of every layer's input: ends and histogram per channel, a file like any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.files import replacing

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
