"""The adapter F1 F2 inside the quantized residual (QArtSR Eq. 9): merged into the codes, free at run time.

F1 = 0 at the start, so nothing changes; F2 is random, a function of the layer's name alone.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from qartsr.branches.base import BRANCHES, AbstractBranch, Operation
from qartsr.config.parts import LoRAConfig


@BRANCHES.register(LoRAConfig)
class LoRA(AbstractBranch):
    """W + F1 F2 with F1 (O, r) and F2 (r, C k^2). The rank is cut to that of the weight."""

    def __init__(self, config: LoRAConfig, shape: tuple[int, ...], name: str) -> None:
        super().__init__()
        self._shape, self._name = tuple(shape), name
        width = math.prod(shape[1:])
        rank = min(config.rank, shape[0], width)
        self.left = torch.nn.Parameter(torch.zeros(shape[0], rank))
        self.right = torch.nn.Parameter(torch.zeros(rank, width))

    def calibrate(self, weight: Tensor, phi: Tensor) -> None:
        """F1 = 0, F2 normal with variance 1 / (C k^2)."""
        seed = int.from_bytes(hashlib.sha256(self._name.encode()).digest()[:7], "little")
        noise = torch.randn(self.right.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.left.zero_()
            self.right.copy_(noise / math.sqrt(self.right.shape[1]))

    def matrix(self) -> Tensor:
        """F1 F2 in the weight's shape."""
        return (self.left @ self.right).reshape(self._shape)

    def apply(self, x: Tensor, operation: Operation) -> Tensor:
        """F1 (F2 x): not used by the layer, where the adapter is part of the quantized weight."""
        return operation.pointwise(operation(x, self.factors()[1], None), self.left)

    def factors(self) -> tuple[Tensor, ...]:
        """F1 and F2 as a kernel."""
        return self.left, self.right.reshape(self.right.shape[0], *self._shape[1:])
