"""The null branch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.branches.family import BRANCHES, Layout, Op
from qartsr.config.parts import NoBranchConfig


@BRANCHES.register(NoBranchConfig)
class NoBranch(nn.Module):
    """No low-rank matrix."""

    @staticmethod
    def layout(config: NoBranchConfig, shape: tuple[int, ...]) -> Layout:
        """Nothing."""
        return Layout(0, 0, 0)

    def __init__(self, config: NoBranchConfig, shape: tuple[int, ...], name: str) -> None:
        super().__init__()

    def calibrate(self, weight: Tensor, phi: Tensor) -> None:
        """Nothing to set."""

    def matrix(self) -> Tensor:
        """A scalar 0."""
        return torch.zeros(())

    def apply(self, x: Tensor, op: Op) -> Tensor:  # type: ignore[override]
        """A scalar 0."""
        return x.new_zeros(())

    def factors(self) -> tuple[Tensor, ...]:
        """Nothing."""
        return ()
