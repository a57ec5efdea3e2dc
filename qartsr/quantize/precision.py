"""How the bits of the weights are shared out: by the variance of the weights, without data (Q-DiT4SR's VaSMP)."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from torch import Tensor

from qartsr.config.parts import VaSMPConfig

_FEWEST, _MOST = 2, 8


def share_out_bits(weights: Mapping[str, Tensor], bits: int, config: VaSMPConfig) -> dict[str, int]:
    """Bits per layer that minimise sum N_l v_l 4**-b_l at sum N_l b_l <= bits * sum N_l (2602.01273, VaSMP).

    N_l: number of weights; v_l: mean over output channels of their variance. From the fewest bits, the layer whose next
    bit saves most distortion per bit of storage (v_l 4**-b_l) gets it, as long as it fits: the rate-distortion optimum
    b_l = bits + (log2 v_l - mean log2 v) / 2, cut to integers within ``bits`` +- ``spread`` and 2..8. No layer could
    have one bit more without leaving the budget. Deviation: the paper takes variances of Hadamard-rotated weights;
    rotation keeps each channel's mean square, and the means of weights are small beside it.
    """
    fewest, most = max(_FEWEST, bits - config.spread), min(_MOST, bits + config.spread)
    sizes = {name: weight.numel() for name, weight in weights.items()}
    variances = {name: _variance(weight) for name, weight in weights.items()}
    found = dict.fromkeys(weights, fewest)
    left = (bits - fewest) * sum(sizes.values())
    waiting = [(-variances[name] / 4.0**fewest, place, name) for place, name in enumerate(weights)]
    heapq.heapify(waiting)
    while waiting:
        gain, place, name = heapq.heappop(waiting)
        if found[name] == most or sizes[name] > left:
            continue  # what does not fit now never will
        found[name] += 1
        left -= sizes[name]
        heapq.heappush(waiting, (gain / 4, place, name))
    return found


def _variance(weight: Tensor) -> float:
    """Mean over output channels of the variance of their weights."""
    return float(weight.detach().double().flatten(1).var(1, correction=0).mean())
