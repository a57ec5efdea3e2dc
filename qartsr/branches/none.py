"""No branch: the null object of the family."""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.branches.base import BRANCHES, AbstractBranch, Operation
from qartsr.config.parts import NoBranchConfig


@BRANCHES.register(NoBranchConfig)
class NoBranch(AbstractBranch):
    """A matrix of zeros."""

    zero: Tensor

    def __init__(self, config: NoBranchConfig, shape: tuple[int, ...], name: str) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def calibrate(self, weight: Tensor, phi: Tensor) -> None:
        """Nothing to set."""

    def matrix(self) -> Tensor:
        """A scalar 0."""
        return self.zero

    def apply(self, x: Tensor, operation: Operation) -> Tensor:
        """A scalar 0."""
        return self.zero

    def factors(self) -> tuple[Tensor, ...]:
        """None."""
        return ()
