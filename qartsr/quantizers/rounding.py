"""Which code a weight takes, where it is not the nearest: what is added to the weight before it is quantized."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from qartsr.config.parts import LearnedRoundingConfig, NearestConfig
from qartsr.quantizers.family import Quantizer
from qartsr.registry import Registry


class Rounding(Protocol):
    """A shift of the weight. Its one law: the shifted weight, rounded to nearest, has the codes that are wanted.

    So the quantizer, packing and the package know nothing of it.
    """

    def calibrate(self, weight: Tensor, quantizer: Quantizer, inputs: Tensor) -> None:
        """Set the start for a calibrated ``quantizer``; ``inputs`` (N, C k k): what the weight is multiplied with."""

    def __call__(self, weight: Tensor, quantizer: Quantizer) -> Tensor:
        """What ``quantizer`` is to round in the place of ``weight``, same shape."""


ROUNDINGS: Registry[Rounding] = Registry("rounding")
"""``build(config, shape=shape of the weight)``."""


@ROUNDINGS.register(NearestConfig)
class Nearest(nn.Module):
    """The null rounding: every weight takes the nearest code."""

    def __init__(self, config: NearestConfig, shape: tuple[int, ...]) -> None:
        super().__init__()

    def calibrate(self, weight: Tensor, quantizer: Quantizer, inputs: Tensor) -> None:
        """Nothing to set."""

    def forward(self, weight: Tensor, quantizer: Quantizer) -> Tensor:
        """``weight`` itself."""
        return weight


@ROUNDINGS.register(LearnedRoundingConfig)
class LearnedRounding(nn.Module):
    """s round(w / s + v), v learned from 0 and within +-1/2: up or down (SignRound, 2309.05516, Eq. 3).

    Gradients: d/dv = s inside the range, 0 outside; d/ds = round(w / s + v) - w / s, as LSQ's. Deviations: v is clipped
    with a straight-through gradient where SignRound projects it after every step, the optimiser is the training's own
    (Adam, not signed gradients), and the range is the quantizer's. AdaRound's regulariser is not needed: v enters
    before rounding, so it is never between two codes.
    """

    def __init__(self, config: LearnedRoundingConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(shape))

    @torch.no_grad()
    def calibrate(self, weight: Tensor, quantizer: Quantizer, inputs: Tensor) -> None:
        """To nearest."""
        self.offset.zero_()

    def forward(self, weight: Tensor, quantizer: Quantizer) -> Tensor:
        """The weight and its offset in steps of the present grid."""
        clipped = self.offset + (self.offset.clamp(-0.5, 0.5) - self.offset).detach()
        return weight + quantizer.grid(weight).scale * clipped
