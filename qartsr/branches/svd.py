"""The skip branch L1 L2 beside the quantized residual (QArtSR, Eq. 9; SVDQuant, 2411.05007)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.branches.family import BRANCHES, Layout, Op, clipped_rank, product, truncated_svd
from qartsr.config.parts import SVDConfig


@BRANCHES.register(SVDConfig)
class SVD(nn.Module):
    """Truncated SVD of the weight as (O, C k k): left = U sqrt(S), right = sqrt(S) V^T; both are learned.

    ``basis: scaled`` decomposes W phi instead and divides phi out of the right factor, so that the branch still reads
    the untransformed input (SVDQuant). It runs as two thin operations: the layer's own with ``right``, then 1 x 1.
    """

    @staticmethod
    def layout(config: SVDConfig, shape: tuple[int, ...]) -> Layout:
        """Two factors of the rank that the weight can have at most."""
        return Layout(clipped_rank(config.rank, shape), 0, 0)

    def __init__(self, config: SVDConfig, shape: tuple[int, ...], name: str) -> None:
        super().__init__()
        rank = clipped_rank(config.rank, shape)
        self.basis = config.basis
        self.left = nn.Parameter(torch.zeros(shape[0], rank))
        self.right = nn.Parameter(torch.zeros(rank, *shape[1:]))

    @torch.no_grad()
    def calibrate(self, weight: Tensor, phi: Tensor) -> None:
        """Decompose, in float64."""
        scale = phi.double() if self.basis == "scaled" else torch.ones_like(phi, dtype=torch.float64)
        left, right = truncated_svd((weight.detach().double() * scale).flatten(1), self.left.shape[1])
        self.left.copy_(left)
        self.right.copy_(right.reshape(self.right.shape) / scale)

    def matrix(self) -> Tensor:
        """L1 L2, like the weight."""
        return product(self.left, self.right)

    def apply(self, x: Tensor, op: Op) -> Tensor:  # type: ignore[override]
        """L1 (L2 x)."""
        return op.pointwise(op(x, self.right), self.left)

    def factors(self) -> tuple[Tensor, ...]:
        """L1 (O, r) and L2 (r, ...)."""
        return self.left, self.right
