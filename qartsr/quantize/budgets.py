"""How a budget is shared out over layers.

Bits by variances: of weights over layers (VaSMP), of inputs over timesteps (VaTMP); Q-DiT4SR. Ranks of low-rank
branches by the complexity of inputs, in space and time; QuantVSR.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qartsr.config.policies import STCAConfig, VaSMPConfig
from qartsr.errors import QartsrError
from qartsr.layer import LayerOp
from qartsr.models import Backbone
from qartsr.quantize.input_hooks import look_at_inputs
from qartsr.quantizers import KAPPA

_FEWEST, _MOST = 2, 8
_LARGEST = 1 << 28
"""Entries of the table of an exact allocation, one byte each."""


def allocate_bits(weights: Mapping[str, Tensor], bits: int, config: VaSMPConfig) -> dict[str, int]:
    """Bits per layer that minimise sum N_l v_l 4**-b_l at sum N_l b_l <= bits * sum N_l (2602.01273, VaSMP).

    N_l: number of weights; v_l: mean over output channels of their variance, in the basis that is quantized. From the
    fewest bits, the layer whose next bit saves most distortion per bit of storage (v_l 4**-b_l) gets it, as long as it
    fits: the rate-distortion optimum b_l = bits + (log2 v_l - mean log2 v) / 2, cut to integers within ``bits`` +-
    ``spread`` and 2..8. No layer could have one bit more without leaving the budget. With ``exact`` the optimum among
    all allocations that meet the budget to the last bit; raises QartsrError for sizes too diverse for its table.
    """
    fewest, most = max(_FEWEST, bits - config.spread), min(_MOST, bits + config.spread)
    sizes = {name: weight.numel() for name, weight in weights.items()}
    variances = {name: _variance(weight) for name, weight in weights.items()}
    if config.exact:
        found = _exact(list(sizes.values()), list(variances.values()), bits, range(fewest, most + 1))
        return dict(zip(weights, found, strict=True))
    return _greedy(sizes, variances, (bits - fewest) * sum(sizes.values()), range(fewest, most + 1))


def _greedy(sizes: Mapping[str, int], variances: Mapping[str, float], left: int, allowed: range) -> dict[str, int]:
    found = dict.fromkeys(sizes, allowed[0])
    waiting = [(-variances[name] / 4.0 ** allowed[0], place, name) for place, name in enumerate(sizes)]
    heapq.heapify(waiting)
    while waiting:
        gain, place, name = heapq.heappop(waiting)
        if found[name] == allowed[-1] or sizes[name] > left:
            continue  # what does not fit now never will
        found[name] += 1
        left -= sizes[name]
        heapq.heappush(waiting, (gain / 4, place, name))
    return found


def _exact(sizes: Sequence[int], variances: Sequence[float], bits: int, allowed: range) -> list[int]:
    """Least sum of N v 4**-b where sum N (b - bits) is exactly 0: a dynamic program over that sum.

    ``cost[reach + s]``: the least distortion of the layers so far at a balance of s units (greatest common divisor of
    the sizes). The budget can always be met: all layers at ``bits``.
    """
    if not sizes:
        return []
    units = [size // math.gcd(*sizes) for size in sizes]
    reach = sum(units) * max(bits - allowed[0], allowed[-1] - bits) // 2 + max(units) * len(allowed)
    if len(units) * (2 * reach + 1) > _LARGEST:
        raise QartsrError("sizes of layers are too diverse for exact bits", "bits_policy.exact", "leave out exact")
    cost = np.full(2 * reach + 1, np.inf)
    cost[reach] = 0.0
    chosen = np.zeros((len(units), len(cost)), np.uint8)
    for place, (unit, size, variance) in enumerate(zip(units, sizes, variances, strict=True)):
        options = np.stack([_shifted(cost, unit * (b - bits)) + size * variance * 4.0**-b for b in allowed])
        chosen[place] = options.argmin(0)
        cost = options.min(0)
    found, balance = [], reach
    for place in reversed(range(len(units))):
        found.append(allowed[int(chosen[place, balance])])
        balance -= units[place] * (found[-1] - bits)
    return found[::-1]


def _shifted(values: np.ndarray[Any, Any], by: int) -> np.ndarray[Any, Any]:
    """``values`` moved ``by`` places to the right, infinity behind them."""
    moved = np.full_like(values, np.inf)
    if by >= 0:
        moved[by:] = values[: len(values) - by]
    else:
        moved[:by] = values[-by:]
    return moved


def _variance(weight: Tensor) -> float:
    """Mean over output channels of the variance of their weights."""
    return float(weight.detach().double().flatten(1).var(1, correction=0).mean())


def scheduled_bits(variances: Sequence[float], bits: int, segments: int = 3) -> tuple[int, ...]:
    """Bits of one layer's input at every timestep, constant within at most ``segments`` stretches (2602.01273, VaTMP).

    ``variances``: v_t >= 0, the mean square of the input's values at each timestep. Minimises sum kappa(b_t) v_t at
    sum b_t <= bits * T, b_t in 2..8, by dynamic programming over (stretches so far, timestep, bits spent): exact. Of
    equal schedules the first found, fewer bits before more. Without the limit on stretches the greedy allocation would
    be optimal, for kappa is convex. One timestep has nothing to share: it gets ``bits``. Raises ValueError for no
    timestep, no stretch, or bits outside 2..8.
    """
    steps, budget = len(variances), bits * len(variances)
    if not steps or segments < 1 or not _FEWEST <= bits <= _MOST:
        raise ValueError(f"{steps} timesteps, {segments} stretches and {bits} bits make no schedule")
    sums = np.concatenate([[0.0], np.cumsum(variances)])
    cost = np.full((steps + 1, budget + 1), np.inf)
    cost[0] = 0.0  # what is not spent is free
    origin: list[np.ndarray[Any, Any]] = []
    for _ in range(min(segments, steps)):
        best, came = cost.copy(), np.full((steps + 1, budget + 1, 2), -1)
        for end in range(1, steps + 1):
            for start in range(end):
                for b in range(_FEWEST, _MOST + 1):
                    spent = b * (end - start)
                    if spent > budget:
                        break
                    found = cost[start, : budget + 1 - spent] + KAPPA[b] * (sums[end] - sums[start])
                    better = found < best[end, spent:] * (1 - 1e-12)
                    best[end, spent:][better] = found[better]
                    came[end, spent:][better] = start, b
        cost, origin = best, [*origin, came]
    schedule: list[int] = []
    end, left = steps, budget
    for came in reversed(origin):
        start, b = came[end, left]
        if start < 0:
            continue  # no better with one stretch more
        schedule = [int(b)] * int(end - start) + schedule
        end, left = int(start), int(left - b * (end - start))
    return tuple(schedule)


_BISECTIONS = 60


class Complexities(NamedTuple):
    """Of every layer's input, float64 (layers, images or clips)."""

    spatial: Tensor
    temporal: Tensor | None
    """None of images"""


@torch.no_grad()
def complexities(model: Backbone, images: Tensor, names: Sequence[str], frames: int = 1) -> Complexities:
    """:func:`complexity` of each layer's input for each of ``images`` (N, 3, H, W) in [-1, 1].

    ``frames`` > 1: so many images in a row are one clip, run as one batch; of a clip the mean over its frames, and
    :func:`temporal_complexity`. Raises QartsrError without images, for images that make no whole clips, and for a layer
    that never runs.
    """
    if not len(images):
        raise QartsrError("needs calibration images", "method.rank_policy", "plan with the calibration inputs")
    if len(images) % frames:
        what = f"{len(images)} calibration images make no clips of {frames}"
        raise QartsrError(what, "method.rank_policy.frames", "choose a divisor of their number")
    found: dict[str, list[Tensor]] = {name: [] for name in names}

    def look(name: str, op: LayerOp, x: Tensor) -> None:
        if name in found:
            each = len(x) // frames  # an encoder of clips sees every frame with those before it, the last one being new
            now = x[each - 1 :: each]
            spatial = torch.stack([complexity(frame, op) for frame in now.split(1)]).mean()
            void = spatial.isnan() or frames == 1
            temporal = spatial.new_tensor(float("nan")) if void else temporal_complexity(now)
            found[name].append(torch.stack([spatial, temporal]).cpu())

    look_at_inputs(model, images.split(frames), look)
    for name, values in found.items():
        if len(values) != len(images) // frames:
            raise QartsrError(
                "calibration has not seen this layer run once per image", name, "keep it in floating point"
            )
    both = torch.stack([torch.stack(values) for values in found.values()])
    return Complexities(both[..., 0], both[..., 1] if frames > 1 else None)


def temporal_complexity(x: Tensor) -> Tensor:
    """C_t of a clip's input, one row per frame: mean squared difference of neighbouring frames; float64, () in shape.

    QuantVSR's STCA (2508.04485, section 3.2). NaN of one frame.
    """
    return x.double().diff(dim=0).square().mean()


def complexity(x: Tensor, op: LayerOp) -> Tensor:
    """C_s of one image's input: standard deviation (n - 1) over positions, mean over channels; float64, () in shape.

    Not padded: a border of zeros would make a flat map look busy. NaN where there is one position. QuantVSR's STCA
    (2508.04485, section 3.2). For tokens the official code takes the deviation
    over the channels of each token, the axes being those of a convolution; here it runs over tokens, as the paper says.
    """
    last = op.channels_last(x).double()
    rows = last.reshape(-1, last.shape[-1])
    return rows.std(0).mean() if len(rows) > 1 else rows.new_tensor(float("nan"))


def votes(complexity: Tensor, config: STCAConfig, temporal: Tensor | None = None) -> list[int]:
    """The rank each layer asks for: minimum + images at or above the upper quantile - images at or below the lower.

    ``complexity`` and ``temporal``: (layers, images). Quantiles over all layers and images; clipped to minimum ..
    maximum (QuantVSR, section 3.2). With ``temporal``, of clips, a vote needs both beyond their own quantiles. A layer
    without complexity (NaN) is not in the quantiles and asks for the minimum.
    """
    high, low = torch.ones_like(complexity, dtype=torch.bool), torch.ones_like(complexity, dtype=torch.bool)
    for each in (complexity, *(() if temporal is None else (temporal,))):
        lower, upper = (torch.nanquantile(each.flatten(), share) for share in (config.lower, config.upper))
        high, low = high & (each >= upper), low & (each <= lower)
    asked = config.minimum + high.sum(1) - low.sum(1)
    return [int(rank) for rank in asked.clamp(config.minimum, config.maximum)]


def as_voted(asked: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]], config: STCAConfig) -> dict[str, int]:
    """Ranks as QuantVSR takes them: votes rounded to multiples, m floor((r + m / 2) / m), no larger than full rank.

    Deviation: none falls below the minimum, which the official code rounds to 0 where it is below half a multiple.
    """
    step, ranks = config.multiple, {}
    for name, shape in shapes.items():
        rounded = (asked[name] + step // 2) // step * step
        ranks[name] = min(max(rounded, config.minimum), shape[0], math.prod(shape[1:]))
    return ranks


def allocate_ranks(
    asked: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]], rank: int, config: STCAConfig
) -> dict[str, int]:
    """Ranks in proportion to those asked for, as large together as ``rank`` in every layer.

    A rank costs O + C k k numbers, and no layer has more than its full rank. The sum stays within the budget, and no
    layer could have one step more without leaving it. Deviation: QuantVSR takes the votes as they are, at whatever
    budget results; here methods are compared at one budget. Ranks are multiples of ``config.multiple``, or the
    minimum, or the largest that the layer or ``config.maximum`` allows. Raises QartsrError where even the minimum is
    beyond the budget.
    """
    costs = {name: shape[0] + math.prod(shape[1:]) for name, shape in shapes.items()}
    full = {name: min(shape[0], math.prod(shape[1:])) for name, shape in shapes.items()}
    budget = sum(costs[name] * min(rank, full[name]) for name in shapes)
    ladders = {name: _ladder(config, full[name]) for name in shapes}

    def at(scale: float) -> dict[str, int]:
        return {n: max((r for r in ladders[n] if r <= scale * asked[n]), default=ladders[n][0]) for n in shapes}

    def price(ranks: Mapping[str, int]) -> int:
        return sum(costs[name] * ranks[name] for name in ranks)

    if price(at(0.0)) > budget:
        do = f"lower rank_policy.minimum or raise layer.skip.rank above {rank}"
        raise QartsrError("the minimum ranks exceed the budget", "method.rank_policy", do)
    low, high = 0.0, float(2 * max([1, *full.values()]))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if price(at(middle)) <= budget else (low, middle)
    ranks, left = at(low), budget - price(at(low))
    for name in sorted(shapes, key=lambda n: (ranks[n] - low * asked[n], n)):  # who was cut short most comes first
        for step in (r for r in ladders[name] if r > ranks[name]):
            if costs[name] * (step - ranks[name]) > left:
                break
            left -= costs[name] * (step - ranks[name])
            ranks[name] = step
    return ranks


def _ladder(config: STCAConfig, full: int) -> list[int]:
    """The ranks a layer may have, ascending."""
    first, last = min(config.minimum, full), min(config.maximum, full)
    return sorted({first, last, *(r for r in range(config.multiple, last, config.multiple) if r > first)})
