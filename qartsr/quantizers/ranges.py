"""Initial ranges of affine quantizers: usable ends, and the search for the least squared error."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qartsr.quantizers.fake import SMALLEST_SCALE, range_grid
from qartsr.quantizers.grid import Grid, nearest
from qartsr.quantizers.stats import RangeStats

_STEPS = 40
_CACHED = 2**17
_NARROWEST = 1e-5

MakeGrid = Callable[[Tensor, Tensor, int], Grid]


def usable(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """A range that is not empty, ends of one shape: a constant is joined with 0, so that both are on the grid.

    Zeros get a tiny range.
    """
    flat = upper - lower <= 1e-6 * torch.maximum(lower.abs(), upper.abs())
    lower = torch.where(flat, lower.clamp_max(0), lower)
    upper = torch.where(flat, upper.clamp_min(0), upper)
    return lower, torch.where(upper - lower < _NARROWEST, torch.where(flat, lower + _NARROWEST, upper), upper)


def symmetric_grid(lower: Tensor, upper: Tensor, levels: int) -> Grid:
    """Codes -2**(b-1) .. 2**(b-1) - 1 times scale = max(|lower|, |upper|) / (2**(b-1) - 1): 0 and the ends are on it.

    Ends of one shape, that of the scale. At 2 bits: three values and a fourth beyond the lower end, hardly used.
    """
    positive = (levels - 1) // 2
    scale = (torch.maximum(lower.abs(), upper.abs()) / positive).clamp_min(SMALLEST_SCALE)
    return Grid(scale, -(positive + 1) * scale, levels)


def squared_error(stats: RangeStats, grid: Grid) -> Tensor:
    """(..., G) weighted sums of squared quantization errors for grids of shape (..., G, 1)."""
    error = nearest(stats.values, grid).mul_(grid.scale).add_(grid.offset).sub_(stats.values).square_()
    return error.mul_(stats.counts).sum(-1)


@torch.no_grad()
def least_squares(stats: RangeStats, levels: int, make: MakeGrid = range_grid) -> tuple[Tensor, Tensor]:
    """(G,) lower and (G,) upper with the least squared error among shrunk ranges; never worse than the full range.

    First both ends shrink together towards 0 (or the end nearest to it), then each alone: 3 x 40 candidates.
    """
    lower, upper = usable(stats.lower, stats.upper)
    anchor = torch.zeros_like(lower).clamp(lower, upper)
    shares = torch.arange(_STEPS, 0, -1, device=lower.device, dtype=lower.dtype)[:, None] / _STEPS
    below, above = torch.ones_like(lower), torch.ones_like(upper)
    for move_lower, move_upper in ((True, True), (True, False), (False, True)):
        # the range found so far comes first, and of equals the first wins: a stage cannot lose
        lows = torch.cat([below[None], shares.expand(-1, len(lower)) if move_lower else below.expand(_STEPS, -1)])
        highs = torch.cat([above[None], shares.expand(-1, len(upper)) if move_upper else above.expand(_STEPS, -1)])
        lowers, uppers = anchor + lows * (lower - anchor), anchor + highs * (upper - anchor)
        best = _errors(stats, lowers, uppers, levels, make).argmin(0, keepdim=True)
        below, above = lows.gather(0, best)[0], highs.gather(0, best)[0]
    return anchor + below * (lower - anchor), anchor + above * (upper - anchor)


def _errors(stats: RangeStats, lowers: Tensor, uppers: Tensor, levels: int, make: MakeGrid) -> Tensor:
    """(K, G) squared errors of K candidate ranges per group, as many at once as stay in the cache."""
    at_once = max(1, _CACHED // stats.values.numel())
    pairs = zip(lowers[..., None].split(at_once), uppers[..., None].split(at_once), strict=True)
    return torch.cat([squared_error(stats, make(low, high, levels)) for low, high in pairs])
