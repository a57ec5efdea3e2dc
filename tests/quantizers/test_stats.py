"""Weighted samples against the tensors they stand for."""

from __future__ import annotations

import torch

from qartsr.config.parts import LBQConfig
from qartsr.quantizers import LBQ, RangeStats, stats_of, weighted_stats


def _pair() -> tuple[torch.Tensor, RangeStats]:
    values = torch.tensor([-1.0, 0.0, 0.5, 4.0])
    counts = torch.tensor([3.0, 10.0, 5.0, 1.0])
    whole = torch.repeat_interleave(values, counts.long())
    return whole, RangeStats(values[None], counts[None], values.amin()[None], values.amax()[None])


def test_weights_count_like_repetitions() -> None:
    whole, weighted = _pair()
    plain = stats_of(whole, 1)
    torch.testing.assert_close(weighted.mean_magnitude(), plain.mean_magnitude())
    for share in (0.01, 0.1, 0.3, 0.5, 0.9, 0.99, 1.0):
        assert weighted.quantile(share) == plain.quantile(share), share
    ranges = []
    for stats in (plain, weighted):
        quantizer = LBQ(LBQConfig(init="mse"), 2, ())
        quantizer.calibrate(stats)
        ranges.append(torch.stack([quantizer.lower, quantizer.upper]).detach())
    assert torch.equal(*ranges)


def test_condensing_keeps_ends_mass_and_frequent_values() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50000, generator=generator)
    values[:20000] = 0.0
    stats = weighted_stats(values, torch.ones_like(values), values.amin(), values.amax())
    assert stats.lower == values.amin() and stats.upper == values.amax()
    assert stats.counts.sum() == 50000 and stats.values.shape[1] <= 4096
    torch.testing.assert_close(stats.mean_magnitude()[0], values.abs().mean(), rtol=1e-3, atol=0)
    nearest = stats.values[0].abs().argmin()
    assert stats.values[0, nearest].abs() < 1e-4 and stats.counts[0, nearest] >= 20000


def test_condensing_a_constant() -> None:
    stats = weighted_stats(torch.full((7,), 2.5), torch.ones(7), torch.tensor(2.5), torch.tensor(2.5))
    assert stats.values.tolist() == [[2.5]] and stats.counts.tolist() == [[7.0]]
