"""What a quantizer is calibrated on: weighted values, one row per group that shares a range.

A weight tensor is a sample of its own elements; a layer's input is a sample of histogram bins. Quantizers see no
difference.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_JOINT = torch.linspace(0.15, 1.0, 35)
_SINGLE = torch.linspace(0.6, 1.4, 17)


class Sample(NamedTuple):
    """``values`` (G, N) and their ``weights`` (G, N) >= 0."""

    values: Tensor
    weights: Tensor

    def minmax(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of each group that has weight, each (G,)."""
        absent = self.weights <= 0
        low = self.values.masked_fill(absent, torch.inf).amin(1)
        high = self.values.masked_fill(absent, -torch.inf).amax(1)
        return low, high

    def percentile(self, percent: float) -> tuple[Tensor, Tensor]:
        """The values below and above which (100 - percent) % of the weight lies, each (G,)."""
        values, order = self.values.sort(1)
        mass = self.weights.gather(1, order).double().cumsum(1)
        total = mass[:, -1:]
        tail = total * (1 - percent / 100)
        last = values.shape[1] - 1
        low = (mass <= tail).sum(1).clamp(max=last)
        high = (mass < total - tail).sum(1).clamp(max=last)
        pick = torch.stack([low, high], 1)
        return tuple(values.gather(1, pick).unbind(1))  # type: ignore[return-value]

    def mean_abs(self) -> Tensor:
        """Mean absolute value of each group, (G,)."""
        return (self.values.abs() * self.weights).sum(1) / self.weights.sum(1).clamp_min(1e-12)

    def least_squares(self, levels: int) -> tuple[Tensor, Tensor]:
        """Bounds that minimise the squared quantization error: the range shrunk jointly, then each end alone.

        Never worse than min and max, which are among the candidates.
        """
        low, high = self.minmax()
        low, high = self._best(low, high, [(f, f) for f in _JOINT.tolist()], levels)
        low, high = self._best(low, high, [(f, 1.0) for f in _SINGLE.tolist()], levels)
        return self._best(low, high, [(1.0, f) for f in _SINGLE.tolist()], levels)

    def _best(
        self, low: Tensor, high: Tensor, factors: list[tuple[float, float]], levels: int
    ) -> tuple[Tensor, Tensor]:
        best_low, best_high = low, high
        best = self.error(low, high, levels)
        for for_low, for_high in factors:
            error = self.error(low * for_low, high * for_high, levels)
            better = error < best
            best = torch.where(better, error, best)
            best_low = torch.where(better, low * for_low, best_low)
            best_high = torch.where(better, high * for_high, best_high)
        return best_low, best_high

    def error(self, low: Tensor, high: Tensor, levels: int) -> Tensor:
        """Weighted squared error of each group on the grid between bounds (G,), zero point rounded."""
        scale = step(low, high, levels)[:, None]
        zero = (low[:, None] / scale).round()
        on_grid = ((self.values / scale - zero).round().clamp(0, levels) + zero) * scale
        return ((on_grid - self.values).square() * self.weights).sum(1)


def step(low: Tensor, high: Tensor, levels: int) -> Tensor:
    """(high - low) / levels, kept positive: a constant tensor or crossed bounds give a tiny step, never a NaN."""
    return ((high - low) / levels).clamp_min(1e-8)


def tensor_sample(x: Tensor, granularity: str) -> Sample:
    """A tensor's own elements: one group, or one per index of dimension 0 (``channel``)."""
    values = x.detach().reshape(x.shape[0], -1) if granularity == "channel" else x.detach().reshape(1, -1)
    return Sample(values, torch.ones_like(values))
