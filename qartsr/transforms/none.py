"""The null transform."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.config.parts import NoTransformConfig
from qartsr.transforms.family import TRANSFORMS


@TRANSFORMS.register(NoTransformConfig)
class NoTransform(nn.Module):
    """No change of basis: phi = 1, delta = 0."""

    phi: Tensor
    delta: Tensor

    def __init__(self, config: NoTransformConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("phi", torch.ones(shape[1]), persistent=False)
        self.register_buffer("delta", torch.zeros(shape[1]), persistent=False)

    def calibrate(self, absmax: Tensor, weight: Tensor) -> None:
        """Nothing to set."""

    def input(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x

    def weight(self, weight: Tensor) -> Tensor:
        """``weight`` itself."""
        return weight

    def bias(self, weight: Tensor) -> Tensor:
        """Zeros, (O,)."""
        return weight.new_zeros(weight.shape[0])

    def input_factors(self) -> tuple[Tensor, Tensor]:
        """Ones and zeros."""
        return self.phi, self.delta
