"""The interface of low-rank branches, and the table from their configuration to their classes."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from qartsr.config.parts import NoBranchConfig
from qartsr.registry import Registry


class Op(Protocol):
    """What a branch needs of the layer's operation; inputs are padded already."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's convolution or product with another weight."""

    def pointwise(self, x: Tensor, matrix: Tensor) -> Tensor:
        """``matrix`` (O, r) applied to the channels of ``x``."""

    def grouped(self, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        """The layer's operation, channels in ``groups`` that do not mix; ``weight`` (groups r, C / groups, ...)."""

    def grouped_pointwise(self, x: Tensor, matrix: Tensor, groups: int) -> Tensor:
        """``matrix`` (O, C / groups) applied to the channels of ``x``, group by group."""

    def transposed(self, x: Tensor, groups: int) -> Tensor:
        """Channels of ``x`` in ``groups`` of r: channel (group, i) goes to place (i, group)."""


class Layout(NamedTuple):
    """How a budget is spent on a weight (O, C, ...): global rank, and a grid of blocks."""

    rank: int
    rows: int
    """P: parts of the outputs; 0: there are no blocks"""
    columns: int
    """Q: parts of the input channels"""


class Branch(Protocol):
    """A low-rank matrix beside or inside the quantized weight."""

    @staticmethod
    def layout(config: Any, shape: tuple[int, ...]) -> Layout:
        """What is stored of it beside a weight of this shape: known before any weight is."""
        ...

    def calibrate(self, weight: Tensor, phi: Tensor) -> None:
        """Set initial values.

        ``weight`` (O, C, ...); ``phi``, the factor of the transform, (C, 1, ...), broadcasts over it.
        """

    def matrix(self) -> Tensor:
        """The matrix multiplied out: like the weight, or a scalar 0."""

    def apply(self, x: Tensor, op: Op) -> Tensor:
        """Its contribution (B, O, ...) for the padded, untransformed input ``x`` (B, C, ...), or a scalar 0."""

    def factors(self) -> tuple[Tensor, ...]:
        """What is stored of it: left (O, r) and right (r, C, k, k) or (r, C); empty for none; see HSVD for its four."""


BRANCHES: Registry[Branch] = Registry("branch")
"""``build(config, shape=shape of the weight, name=full name of the layer)``."""


def branch_layout(config: object, shape: tuple[int, ...]) -> Layout:
    """What a branch beside a weight of ``shape`` (O, C, ...) is made of, as its class says.

    Raises QartsrError for a kind that is not registered or does not say.
    """
    found: Layout = BRANCHES.answer(config, "layout")(config, shape)
    return found


def clipped_rank(rank: int, shape: tuple[int, ...]) -> int:
    """At most the rank a weight of this shape can have."""
    columns = 1
    for size in shape[1:]:
        columns *= size
    return min(rank, shape[0], columns)


_WHOLE = 512
"""Rows or columns, whichever are fewer, up to which a matrix is decomposed whole."""


def truncated_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Balanced factors U sqrt(S) (m, rank) and sqrt(S) V^T (rank, n) of the best matrix of that rank; give float64.

    Larger matrices by the eigenvectors of M M^T or M^T M, whichever is smaller: a fraction of the work of a whole SVD.
    The product differs by 1e-12 of the largest singular value where the last one kept is above a thousandth of it, and
    by 1e-8 at worst: squares hold half the digits.
    """
    if min(matrix.shape) <= _WHOLE:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        root = s[:rank].sqrt()
        return u[:, :rank] * root, root[:, None] * vh[:rank]
    if matrix.shape[0] > matrix.shape[1]:
        right, left = truncated_svd(matrix.mT, rank)
        return left.mT, right.mT
    squares, vectors = torch.linalg.eigh(matrix @ matrix.mT)  # ascending
    lost = squares[-1] * len(squares) * torch.finfo(squares.dtype).eps
    squares, u = squares.flip(0)[:rank], vectors.flip(1)[:, :rank]
    there = squares > lost
    root = squares.where(there, 1.0).sqrt().sqrt()
    return u * root * there, u.mT @ matrix / root[:, None] * there[:, None]


def product(left: Tensor, right: Tensor) -> Tensor:
    """(O, r) times (r, ...), shaped like the weight: (O, ...)."""
    return (left @ right.flatten(1)).reshape(left.shape[0], *right.shape[1:])


@BRANCHES.register(NoBranchConfig)
class NoBranch(nn.Module):
    """No low-rank matrix."""

    @staticmethod
    def layout(config: NoBranchConfig, shape: tuple[int, ...]) -> Layout:
        """Nothing, ()."""
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
        """Nothing, ()."""
        return ()
