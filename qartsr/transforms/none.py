"""The null transform."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from qartsr.config.parts import NoTransformConfig
from qartsr.transforms.family import TRANSFORMS, Stored, no_candidates


@TRANSFORMS.register(NoTransformConfig)
class NoTransform(nn.Module):
    """No change of basis: phi = 1, delta = 0."""

    stored: ClassVar[Stored] = "none"
    mixes: ClassVar[bool] = False

    phi: Tensor
    delta: Tensor

    def __init__(self, config: NoTransformConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("phi", torch.ones(shape[1]), persistent=False)
        self.register_buffer("delta", torch.zeros(shape[1]), persistent=False)

    def calibrate(self, absmax: Tensor, weight: Tensor) -> None:
        """Nothing to set."""

    def candidates(self, absmax: Tensor, weight: Tensor) -> Tensor:
        """(0, C)."""
        return no_candidates(weight)

    def adopt(self, phi: Tensor) -> None:
        """There is no phi to set: raises ValueError."""
        raise ValueError("no change of basis has no phi to set")

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
        """Ones and zeros, both (C,)."""
        return self.phi, self.delta
