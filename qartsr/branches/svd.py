"""The 16-bit skip L1 L2, started by a truncated SVD (QArtSR Eq. 9; SVDQuant 2411.05007).

L1 = U sqrt(S), L2 = sqrt(S) V^T: balanced, so that one learning rate serves both. Convolutions: W as (O, C k^2); L2 runs
as a k x k convolution to r channels, L1 as a 1x1 convolution. Basis ``scaled`` takes the SVD of W phi and divides L2 by
phi again, as SVDQuant smooths before it decomposes; QArtSR takes W itself.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qartsr.branches.base import BRANCHES, AbstractBranch, Operation
from qartsr.config.parts import SVDConfig


@BRANCHES.register(SVDConfig)
class SVD(AbstractBranch):
    """The r largest singular directions. The rank is cut to that of the weight."""

    def __init__(self, config: SVDConfig, shape: tuple[int, ...], name: str) -> None:
        super().__init__()
        self._shape, self._basis = tuple(shape), config.basis
        width = math.prod(shape[1:])
        rank = min(config.rank, shape[0], width)
        self.left = torch.nn.Parameter(torch.zeros(shape[0], rank))
        self.right = torch.nn.Parameter(torch.zeros(rank, width))

    def calibrate(self, weight: Tensor, phi: Tensor) -> None:
        """L1 and L2 from the SVD in float64."""
        scale = (phi if self._basis == "scaled" else torch.ones_like(phi)).expand_as(weight).flatten(1).double()
        u, s, v = torch.linalg.svd(weight.flatten(1).double() * scale, full_matrices=False)
        rank, root = self.left.shape[1], s.sqrt()
        with torch.no_grad():
            self.left.copy_(u[:, :rank] * root[:rank])
            self.right.copy_(root[:rank, None] * v[:rank] / scale[:1])

    def matrix(self) -> Tensor:
        """L1 L2 in the weight's shape."""
        return (self.left @ self.right).reshape(self._shape)

    def apply(self, x: Tensor, operation: Operation) -> Tensor:
        """L1 (L2 x)."""
        return operation.pointwise(operation(x, self.factors()[1], None), self.left)

    def factors(self) -> tuple[Tensor, ...]:
        """L1 and L2 as a kernel."""
        return self.left, self.right.reshape(self.right.shape[0], *self._shape[1:])
