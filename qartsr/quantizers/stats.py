"""What a quantizer is calibrated with: weighted values in groups, one group per range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class RangeStats(NamedTuple):
    """A tensor as seen by a quantizer with G ranges: G weighted samples and their exact ends."""

    values: Tensor
    """(G, n)"""
    counts: Tensor
    """(G, n) or broadcastable to it, >= 0: how often each value occurs"""
    lower: Tensor
    """(G,) smallest value"""
    upper: Tensor
    """(G,) largest value"""

    @property
    def groups(self) -> int:
        """Number of ranges."""
        return self.values.shape[0]

    def mean_magnitude(self) -> Tensor:
        """(G,) mean of the magnitudes."""
        counts = self.counts.expand_as(self.values)
        return (self.values.abs() * counts).sum(1) / counts.sum(1).clamp_min(1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """(G,) mean and (G,) standard deviation (of the population)."""
        counts = self.counts.expand_as(self.values)
        total = counts.sum(1, keepdim=True).clamp_min(1)
        mean = (self.values * counts).sum(1, keepdim=True) / total
        variance = ((self.values - mean).square() * counts).sum(1, keepdim=True) / total
        return mean[:, 0], variance.sqrt()[:, 0]

    def widened(self, factor: float) -> RangeStats:
        """As if only values at ``factor`` times the ends occurred: a range of least error is all that lies between."""
        lower, upper = torch.minimum(self.lower, self.lower * factor), torch.maximum(self.upper, self.upper * factor)
        ends = torch.stack([lower, upper], 1)
        return RangeStats(ends, ends.new_ones(1, 1), *ends.unbind(1))

    def quantile(self, share: float) -> Tensor:
        """(G,) the smallest value with at least ``share`` (0..1) of the weight at or below it."""
        values, order = self.values.sort(dim=1)
        total = self.counts.expand_as(values).gather(1, order).to(torch.float64).cumsum(1)
        index = (total < share * total[:, -1:] * (1 - 1e-12)).sum(1, keepdim=True).clamp_max(values.shape[1] - 1)
        return values.gather(1, index)[:, 0]


def stats_of(x: Tensor, groups: int) -> RangeStats:
    """Statistics of ``x``, of any shape: one group, or one per index of dim 0. Raises ValueError when neither fits."""
    if groups not in (1, x.shape[0] if x.ndim else 1):
        raise ValueError(f"{groups} ranges do not fit a tensor of shape {tuple(x.shape)}")
    values = x.detach().reshape(groups, -1)
    return RangeStats(values, values.new_ones(1, 1), values.amin(1), values.amax(1))


def joined_stats(parts: Sequence[RangeStats]) -> RangeStats:
    """Statistics of one group each -> one with as many groups; the shorter repeat a value that then counts 0."""
    longest = max(part.values.shape[1] for part in parts)
    values, counts = [], []
    for part in parts:
        missing = longest - part.values.shape[1]
        values.append(torch.cat([part.values, part.values[:, :1].expand(-1, missing)], 1))
        counts.append(torch.cat([part.counts.expand_as(part.values), part.values.new_zeros(1, missing)], 1))
    lower, upper = torch.cat([part.lower for part in parts]), torch.cat([part.upper for part in parts])
    return RangeStats(torch.cat(values), torch.cat(counts), lower, upper)


def weighted_stats(values: Tensor, counts: Tensor, lower: Tensor, upper: Tensor, bins: int = 4096) -> RangeStats:
    """One group from weighted ``values`` (any shape) with ends ``lower`` and ``upper``, condensed into ``bins`` bins.

    Each bin is represented by its weighted mean, so a value that occurs often (zeros) stays exact.
    """
    flat, weight = values.reshape(-1).double(), counts.reshape(-1).double()
    low, high = lower.double().reshape(1), upper.double().reshape(1)
    width = ((high - low) / bins).clamp_min(torch.finfo(torch.float64).tiny)
    index = ((flat - low) / width).long().clamp_(0, bins - 1)
    total = torch.bincount(index, weight, bins)
    mean = torch.bincount(index, weight * flat, bins) / total.clamp_min(1)
    kept = total > 0
    return RangeStats(
        mean[kept].to(values.dtype)[None], total[kept].to(values.dtype)[None],
        low.to(values.dtype), high.to(values.dtype),
    )  # fmt: skip
