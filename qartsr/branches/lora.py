"""The adapter F1 F2 added to the residual before quantization (QArtSR, Eq. 9; EfficientDM's QALoRA)."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from qartsr.branches.family import BRANCHES, Layout, Op, clipped_rank, product
from qartsr.config.parts import LoRAConfig


@BRANCHES.register(LoRAConfig)
class LoRA(nn.Module):
    """Left = F1 = 0 at the start, right = F2 uniform in +-1 / sqrt(fan-in), the same in every run."""

    @staticmethod
    def layout(config: LoRAConfig, shape: tuple[int, ...]) -> Layout:
        """Nothing: it is merged into the weight."""
        return Layout(0, 0, 0)

    def __init__(self, config: LoRAConfig, shape: tuple[int, ...], name: str) -> None:
        super().__init__()
        rank = clipped_rank(config.rank, shape)
        self.name = name
        self.left = nn.Parameter(torch.zeros(shape[0], rank))
        self.right = nn.Parameter(torch.zeros(rank, *shape[1:]))

    @torch.no_grad()
    def calibrate(self, weight: Tensor, phi: Tensor) -> None:
        """Draw F2 from the layer's name and shape."""
        digest = hashlib.sha256(f"{self.name} {tuple(self.right.shape)}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        bound = 1 / math.sqrt(self.right[0].numel())
        self.left.zero_()
        self.right.copy_((2 * torch.rand(self.right.shape, generator=generator) - 1) * bound)

    def matrix(self) -> Tensor:
        """F1 F2, like the weight."""
        return product(self.left, self.right)

    def apply(self, x: Tensor, op: Op) -> Tensor:  # type: ignore[override]
        """F1 (F2 x)."""
        return op.pointwise(op(x, self.right), self.left)

    def factors(self) -> tuple[Tensor, ...]:
        """F1 (O, r) and F2 (r, ...)."""
        return self.left, self.right
