"""Initial ranges of affine quantizers: usable ends, and the search for the least squared error."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qartsr.quantizers.fake import range_grid
from qartsr.quantizers.grid import Grid, nearest
from qartsr.quantizers.stats import RangeStats

_STEPS = 40
_NARROWEST = 1e-5

MakeGrid = Callable[[Tensor, Tensor, int], Grid]


def usable(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """A range that is not empty: a constant is joined with 0, so that both are on the grid; zeros get a tiny range."""
    flat = upper - lower <= 1e-6 * torch.maximum(lower.abs(), upper.abs())
    lower = torch.where(flat, lower.clamp_max(0), lower)
    upper = torch.where(flat, upper.clamp_min(0), upper)
    return lower, torch.where(upper - lower < _NARROWEST, torch.where(flat, lower + _NARROWEST, upper), upper)


def squared_error(stats: RangeStats, grid: Grid) -> Tensor:
    """(G,) weighted sum of squared quantization errors; the grid's tensors are (G, 1)."""
    error = nearest(stats.values, grid).mul_(grid.scale).add_(grid.offset).sub_(stats.values).square_()
    return error.mul_(stats.counts).sum(1)


@torch.no_grad()
def least_squares(stats: RangeStats, levels: int, make: MakeGrid = range_grid) -> tuple[Tensor, Tensor]:
    """(G,) lower and (G,) upper with the least squared error among shrunk ranges; never worse than the full range.

    First both ends shrink together towards 0 (or the end nearest to it), then each alone: 3 x 40 candidates.
    """
    lower, upper = usable(stats.lower, stats.upper)
    anchor = torch.zeros_like(lower).clamp(lower, upper)
    shares = [step / _STEPS for step in range(_STEPS, 0, -1)]
    below, above = torch.ones_like(lower), torch.ones_like(upper)
    best = torch.full_like(lower, torch.inf)
    for move_lower, move_upper in ((True, True), (True, False), (False, True)):
        start = below, above
        for share in shares:
            trial = (torch.full_like(below, share) if move_lower else start[0],
                     torch.full_like(above, share) if move_upper else start[1])  # fmt: skip
            ends = anchor + trial[0] * (lower - anchor), anchor + trial[1] * (upper - anchor)
            error = squared_error(stats, make(ends[0][:, None], ends[1][:, None], levels))
            better = error < best
            best = torch.where(better, error, best)
            below, above = torch.where(better, trial[0], below), torch.where(better, trial[1], above)
    return anchor + below * (lower - anchor), anchor + above * (upper - anchor)
