"""No transform: the null object of the family."""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.config.parts import NoTransformConfig
from qartsr.transforms.base import TRANSFORMS, AbstractTransform, Factors


@TRANSFORMS.register(NoTransformConfig)
class NoTransform(AbstractTransform):
    """Input and weight stay as they are."""

    one: Tensor

    def __init__(self, config: NoTransformConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(1), persistent=False)

    def calibrate(self, input_absmax: Tensor, weight: Tensor) -> None:
        """Nothing to set."""

    def input(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x

    def weight(self, v: Tensor) -> Tensor:
        """``v`` itself."""
        return v

    def bias(self, v: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(self.one)

    def factors(self) -> Factors:
        """1 and 0."""
        return Factors(self.one, torch.zeros_like(self.one))
