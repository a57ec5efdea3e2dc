"""Scale, and scale with offset, per input channel (SmoothQuant; PassionSR's learnable equivalent transformation).

phi is the parameter itself, kept above a floor by clamping, not its logarithm: a phi rounded to 16 bits for storage
then is bit for bit the phi that computes, and packing loses nothing.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from qartsr.config.parts import ChannelAffineConfig, ChannelScaleConfig
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


@TRANSFORMS.register(ChannelScaleConfig)
class ChannelScale(nn.Module):
    """x / phi and W phi; phi is learned."""

    stored: ClassVar[Stored] = "scale"
    mixes: ClassVar[bool] = False

    def __init__(self, config: ChannelScaleConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.alpha, self.ndim = config.alpha, len(shape)
        self.phi = nn.Parameter(torch.ones(shape[1]))

    @torch.no_grad()
    def calibrate(self, absmax: Tensor, weight: Tensor) -> None:
        """Balance the ranges of inputs and weight."""
        self.phi.copy_(initial_phi(absmax, weight, self.alpha))

    def candidates(self, absmax: Tensor, weight: Tensor) -> Tensor:
        """None: the formula decides."""
        return no_candidates(weight)

    @torch.no_grad()
    def adopt(self, phi: Tensor) -> None:
        """Start from ``phi``."""
        self.phi.copy_(phi)

    def _factor(self) -> Tensor:
        return per_channel(self.phi.clamp_min(FLOOR), self.ndim)

    def input(self, x: Tensor) -> Tensor:
        """X / phi."""
        return x / self._factor()

    def weight(self, weight: Tensor) -> Tensor:
        """V phi."""
        return weight * self._factor()

    def bias(self, weight: Tensor) -> Tensor:
        """Zeros, (O,)."""
        return weight.new_zeros(weight.shape[0])

    def input_factors(self) -> tuple[Tensor, Tensor]:
        """Phi, and zeros for delta."""
        return self.phi.detach().clamp_min(FLOOR), torch.zeros_like(self.phi.detach())


@TRANSFORMS.register(ChannelAffineConfig)
class ChannelAffine(nn.Module):
    """(x - delta) / phi, W phi and b + W delta; both are learned, delta from 0 (PassionSR's LET, sign corrected)."""

    stored: ClassVar[Stored] = "affine"
    mixes: ClassVar[bool] = False

    def __init__(self, config: ChannelAffineConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.alpha, self.ndim = config.alpha, len(shape)
        self.phi = nn.Parameter(torch.ones(shape[1]))
        self.delta = nn.Parameter(torch.zeros(shape[1]))

    @torch.no_grad()
    def calibrate(self, absmax: Tensor, weight: Tensor) -> None:
        """Balance the ranges of inputs and weight."""
        self.phi.copy_(initial_phi(absmax, weight, self.alpha))
        self.delta.zero_()

    def candidates(self, absmax: Tensor, weight: Tensor) -> Tensor:
        """None: the formula decides."""
        return no_candidates(weight)

    @torch.no_grad()
    def adopt(self, phi: Tensor) -> None:
        """Start from ``phi``."""
        self.phi.copy_(phi)

    def _factor(self) -> Tensor:
        return per_channel(self.phi.clamp_min(FLOOR), self.ndim)

    def input(self, x: Tensor) -> Tensor:
        """(x - delta) / phi."""
        return (x - per_channel(self.delta, self.ndim)) / self._factor()

    def weight(self, weight: Tensor) -> Tensor:
        """V phi."""
        return weight * self._factor()

    def bias(self, weight: Tensor) -> Tensor:
        """V delta, (O,)."""
        return (weight * per_channel(self.delta, self.ndim)).flatten(1).sum(1)

    def input_factors(self) -> tuple[Tensor, Tensor]:
        """Phi and delta."""
        return self.phi.detach().clamp_min(FLOOR), self.delta.detach()
