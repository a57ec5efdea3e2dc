"""Which code a weight takes, where it is not the nearest: what is added to the weight before it is quantized."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from qartsr.config.parts import IntegerConfig, LearnedRoundingConfig, NearestConfig
from qartsr.quantizers.family import Quantizer
from qartsr.quantizers.grid import decode, encode
from qartsr.registry import Registry


class Rounding(Protocol):
    """A shift of the weight. Its one law: the shifted weight, rounded to nearest, has the codes that are wanted.

    So the quantizer, packing and the package know nothing of it.
    """

    def calibrate(self, weight: Tensor, quantizer: Quantizer, inputs: Tensor) -> None:
        """Set the start for a calibrated ``quantizer`` of ``weight`` (O, C, ...).

        ``inputs`` (N, C k k): what the weight is multiplied with.
        """

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


@ROUNDINGS.register(IntegerConfig)
class IntegerBase(nn.Module):
    """The start's codes on the present grid, and what training adds to the weight since (EfficientDM's QALoRA).

    With an adapter F1 F2 the quantizer sees s (c - z) + F1 F2, c fixed: the base moves with the step, and a code
    changes when the adapter has moved it by half a step. From the floating-point weight, a tie may be crossed at once.
    Gradients of the step go through the base too. Deviation: in the official code the step that decodes the base
    shares storage with the quantizer's, and both are in the optimizer, so it moves twice.
    """

    codes: Tensor
    start: Tensor

    def __init__(self, config: IntegerConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("start", torch.zeros(shape))

    @torch.no_grad()
    def calibrate(self, weight: Tensor, quantizer: Quantizer, inputs: Tensor) -> None:
        """Keep the weight and its codes."""
        self.start.copy_(weight)
        self.codes.copy_(encode(weight, quantizer.grid(weight)))

    def forward(self, weight: Tensor, quantizer: Quantizer) -> Tensor:
        """The decoded codes and what ``weight`` has gained since the start."""
        return decode(self.codes, quantizer.grid(weight)) + (weight - self.start)


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
