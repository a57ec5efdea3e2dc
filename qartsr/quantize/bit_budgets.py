"""How a budget of bits is shared out over layers and timesteps.

By variances: of weights over layers (VaSMP), of inputs over timesteps (VaTMP); Q-DiT4SR. Of inputs over layers, by the
same argument; ours.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qartsr.config.policies import VarianceConfig, VaSMPConfig
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
    return _greedy(sizes, variances, bits, range(fewest, most + 1), lambda b: 4.0**-b)


def _greedy(
    sizes: Mapping[str, int], variances: Mapping[str, float], bits: int, allowed: range, gain: Callable[[int], float]
) -> dict[str, int]:
    """From the fewest bits, the next goes where it saves most per unit of size; ``gain(b)``: by the bit after b."""
    found, left = dict.fromkeys(sizes, allowed[0]), (bits - allowed[0]) * sum(sizes.values())
    if len(allowed) == 1:
        return found
    waiting = [(-variances[name] * gain(allowed[0]), place, name) for place, name in enumerate(sizes)]
    heapq.heapify(waiting)
    while waiting:
        _, place, name = heapq.heappop(waiting)
        if found[name] == allowed[-1] or sizes[name] > left:
            continue  # what does not fit now never will
        found[name] += 1
        left -= sizes[name]
        if found[name] < allowed[-1]:
            heapq.heappush(waiting, (-variances[name] * gain(found[name]), place, name))
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


class Products(NamedTuple):
    """What a layer multiplies, of one image."""

    multiplications: int
    """on average over images and rounded down"""
    mean_square: float
    """of an input's value times that of a weight, both as they are before any transform"""


@torch.no_grad()
def products(model: Backbone, images: Tensor, names: Sequence[str]) -> dict[str, Products]:
    """Of the layers ``names`` of a floating-point model, over ``images`` (N, 3, H, W) in [-1, 1].

    Raises QartsrError without images and for a layer that never runs.
    """
    if not len(images):
        raise QartsrError("needs calibration images", "method.input_bits_policy", "plan with the calibration inputs")
    weights = {name: model.get_submodule(name).get_parameter("weight").detach() for name in names}
    found: dict[str, list[tuple[int, float, int]]] = {name: [] for name in names}

    def look(name: str, op: LayerOp, x: Tensor) -> None:
        if name in found:
            count = op.positions(op.pad(x), tuple(weights[name].shape)) * weights[name].numel()
            found[name].append((count, float(x.double().square().sum()), x.numel()))

    look_at_inputs(model, images.split(8), look)
    for name, values in found.items():
        if not values:
            raise QartsrError("calibration has not seen this layer run", name, "keep it in floating point")
    totals = {name: [sum(each) for each in zip(*values, strict=True)] for name, values in found.items()}
    squares = {name: float(weight.double().square().mean()) for name, weight in weights.items()}
    return {
        name: Products(int(count) // len(images), squares[name] * total / values)
        for name, (count, total, values) in totals.items()
    }


def allocate_input_bits(layers: Mapping[str, Products], bits: int, config: VarianceConfig) -> dict[str, int]:
    """Bits of every layer's input for little of sum M_l v_l kappa(b_l) at sum M_l b_l <= bits * sum M_l.

    M_l: multiplications; v_l: mean square of a product. On Gaussian grids M_l v_l kappa(b_l) is the energy that
    rounding the input adds to the layer's output; other grids are taken for such. From the fewest bits, the layer whose
    next bit saves most per multiplication gets it, as long as it fits (kappa is convex); never worse than ``bits``
    everywhere, which is what comes out where layers are few and unlike. At 2 and 8 bits nothing can move.
    Not in Q-DiT4SR, whose bits of inputs vary over timesteps only; what later layers make of an error is left out.
    """
    allowed = range(max(_FEWEST, bits - config.spread), min(_MOST, bits + config.spread) + 1)
    sizes = {name: each.multiplications for name, each in layers.items()}
    squares = {name: each.mean_square for name, each in layers.items()}
    found = _greedy(sizes, squares, bits, allowed, lambda b: KAPPA[b] - KAPPA[b + 1])
    energy, uniform = (
        sum(each.multiplications * each.mean_square * KAPPA[given[name]] for name, each in layers.items())
        for given in (found, dict.fromkeys(layers, bits))
    )
    return found if energy < uniform else dict.fromkeys(layers, bits)


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
