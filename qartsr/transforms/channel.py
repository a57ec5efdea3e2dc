"""Scale, perhaps with an offset, per input channel: SmoothQuant, SVDQuant, PassionSR's learnable transformation.

phi is the parameter itself, kept above a floor by clamping, not its logarithm: a phi rounded to 16 bits for storage
then is bit for bit the phi that computes, and packing loses nothing.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from qartsr.config.parts import ChannelAffineConfig, ChannelScaleConfig, ChannelSearchConfig
from qartsr.transforms.family import TRANSFORMS, Stored, no_candidates, per_channel

FLOOR = 2.0**-10
"""Smallest phi, exact in 16 bits."""
_CEILING = 2.0**10
_SMALLEST_MAXIMUM = 1e-5


def initial_phi(absmax: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """(C,) max|x|^alpha / max|w|^alpha with both maxima at least 1e-5 (PassionSR), within what 16 bits hold."""
    x = absmax.to(weight).clamp_min(_SMALLEST_MAXIMUM)
    w = weight.detach().transpose(0, 1).flatten(1).abs().amax(1).clamp_min(_SMALLEST_MAXIMUM)
    return (x / w).pow(alpha).clamp(FLOOR, _CEILING)


def phi_candidates(absmax: Tensor, weight: Tensor, steps: int) -> Tensor:
    """(2 steps - 1, C) phi of SVDQuant's search: identity, then max|x|^a / max|w|^b, a = i / steps, b in {0, 1 - a}.

    Maxima and results are bounded as in :func:`initial_phi`.
    """
    x = absmax.to(weight).clamp_min(_SMALLEST_MAXIMUM)
    w = weight.detach().transpose(0, 1).flatten(1).abs().amax(1).clamp_min(_SMALLEST_MAXIMUM)
    shares = [step / steps for step in range(1, steps)]
    found = [x.pow(a) / w.pow(b) for a in shares for b in (0.0, 1 - a)]
    return torch.stack([torch.ones_like(x), *found]).clamp(FLOOR, _CEILING)


class _Channel(nn.Module):
    """A learned phi (C,) per input channel, for a weight of ``shape``."""

    mixes: ClassVar[bool] = False

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.ndim = len(shape)
        self.phi = nn.Parameter(torch.ones(shape[1]))

    @torch.no_grad()
    def adopt(self, phi: Tensor) -> None:
        """Start from ``phi`` (C,)."""
        self.phi.copy_(phi)

    def factor(self) -> Tensor:
        """phi, at least ``FLOOR``, shaped to broadcast over inputs and weights."""
        return per_channel(self.phi.clamp_min(FLOOR), self.ndim)

    def weight(self, weight: Tensor) -> Tensor:
        """``V phi``, shaped like the weight."""
        return weight * self.factor()


@TRANSFORMS.register(ChannelScaleConfig)
class ChannelScale(_Channel):
    """x / phi and W phi; phi is learned."""

    stored: ClassVar[Stored] = "scale"

    def __init__(self, config: ChannelScaleConfig, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.alpha = config.alpha

    @torch.no_grad()
    def calibrate(self, absmax: Tensor, weight: Tensor) -> None:
        """Balance the ranges of inputs and weight (:func:`initial_phi`)."""
        self.phi.copy_(initial_phi(absmax, weight, self.alpha))

    def candidates(self, absmax: Tensor, weight: Tensor) -> Tensor:
        """(0, C): the formula decides."""
        return no_candidates(weight)

    def input(self, x: Tensor) -> Tensor:
        """``x / phi``, shaped like ``x``."""
        return x / self.factor()

    def bias(self, weight: Tensor) -> Tensor:
        """Zeros, (O,)."""
        return weight.new_zeros(weight.shape[0])

    def input_factors(self) -> tuple[Tensor, Tensor]:
        """``phi`` and zeros for delta, both (C,)."""
        return self.phi.detach().clamp_min(FLOOR), torch.zeros_like(self.phi.detach())


@TRANSFORMS.register(ChannelAffineConfig)
class ChannelAffine(_Channel):
    """(x - delta) / phi, W phi and b + W delta; both are learned, delta from 0 (PassionSR's LET, sign corrected)."""

    stored: ClassVar[Stored] = "affine"

    def __init__(self, config: ChannelAffineConfig, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.alpha = config.alpha
        self.delta = nn.Parameter(torch.zeros(shape[1]))

    @torch.no_grad()
    def calibrate(self, absmax: Tensor, weight: Tensor) -> None:
        """Balance the ranges of inputs and weight (:func:`initial_phi`)."""
        self.phi.copy_(initial_phi(absmax, weight, self.alpha))
        self.delta.zero_()

    def candidates(self, absmax: Tensor, weight: Tensor) -> Tensor:
        """(0, C): the formula decides."""
        return no_candidates(weight)

    def input(self, x: Tensor) -> Tensor:
        """``(x - delta) / phi``, shaped like ``x``."""
        return (x - per_channel(self.delta, self.ndim)) / self.factor()

    def bias(self, weight: Tensor) -> Tensor:
        """``V delta``, (O,)."""
        return (weight * per_channel(self.delta, self.ndim)).flatten(1).sum(1)

    def input_factors(self) -> tuple[Tensor, Tensor]:
        """``phi`` and ``delta``, both (C,)."""
        return self.phi.detach().clamp_min(FLOOR), self.delta.detach()


@TRANSFORMS.register(ChannelSearchConfig)
class ChannelSearch(_Channel):
    """x / phi and W phi; phi is learned, from the candidate with the least error of the layer's output.

    That is SVDQuant's smoothing (2411.05007; the exponents are SmoothQuant's migration strength). The objective is the
    quantized layer's with its low-rank branch in place, as there; the candidates are those of its public settings
    (:func:`phi_candidates`). Deviation: convolutions are smoothed too.
    """

    stored: ClassVar[Stored] = "scale"

    def __init__(self, config: ChannelSearchConfig, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.steps = config.steps

    @torch.no_grad()
    def calibrate(self, absmax: Tensor, weight: Tensor) -> None:
        """The identity, until a candidate is adopted."""
        self.phi.fill_(1)

    def candidates(self, absmax: Tensor, weight: Tensor) -> Tensor:
        """(2 steps - 1, C) the values tried."""
        return phi_candidates(absmax, weight, self.steps)

    def input(self, x: Tensor) -> Tensor:
        """``x / phi``, shaped like ``x``."""
        return x / self.factor()

    def bias(self, weight: Tensor) -> Tensor:
        """Zeros, (O,)."""
        return weight.new_zeros(weight.shape[0])

    def input_factors(self) -> tuple[Tensor, Tensor]:
        """``phi`` and zeros for delta, both (C,)."""
        return self.phi.detach().clamp_min(FLOOR), torch.zeros_like(self.phi.detach())
