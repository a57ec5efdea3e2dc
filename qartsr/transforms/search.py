"""Scale per input channel whose start is searched for (SVDQuant, 2411.05007; SmoothQuant's migration strength)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from qartsr.config.parts import ChannelSearchConfig
from qartsr.transforms.channel import FLOOR, phi_candidates
from qartsr.transforms.family import TRANSFORMS, Stored, per_channel


@TRANSFORMS.register(ChannelSearchConfig)
class ChannelSearch(nn.Module):
    """x / phi and W phi; phi is learned, from the candidate with the least error of the layer's output.

    The objective is the quantized layer's with its low-rank branch in place, as SVDQuant's; its candidates are those
    of its public settings (:func:`qartsr.transforms.channel.phi_candidates`). Deviation: convolutions are smoothed too.
    """

    stored: ClassVar[Stored] = "scale"
    mixes: ClassVar[bool] = False

    def __init__(self, config: ChannelSearchConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.steps, self.ndim = config.steps, len(shape)
        self.phi = nn.Parameter(torch.ones(shape[1]))

    @torch.no_grad()
    def calibrate(self, absmax: Tensor, weight: Tensor) -> None:
        """The identity, until a candidate is adopted."""
        self.phi.fill_(1)

    def candidates(self, absmax: Tensor, weight: Tensor) -> Tensor:
        """(2 steps - 1, C) the values tried."""
        return phi_candidates(absmax, weight, self.steps)

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
