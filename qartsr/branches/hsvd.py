"""Hierarchical SVD: a global low rank, and rank 1 in every block of what is left (Q-DiT4SR, 2602.01273)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.branches.family import BRANCHES, Layout, Op, clipped_rank, product, truncated_svd
from qartsr.config.parts import HSVDConfig


def layout(config: HSVDConfig, shape: tuple[int, ...]) -> Layout:
    """The blocks that ``config`` affords a weight of ``shape``: as many as can be, of those the squarest.

    A block is O / P outputs by C / Q whole input channels, so P and Q divide O and C. Blocks take P I + O Q numbers
    (the paper's O I (1/s_i + 1/s_o)), the global rank r_g takes r_g (O + I), I = C k k; together at most
    ``rank`` (O + I). What :func:`searched_layout` has found on the weight stands in ``config.layout`` and is kept.
    """
    if config.layout is not None:
        return Layout(*config.layout)
    outputs, channels, inputs = shape[0], shape[1], _columns(shape)
    rank = clipped_rank(config.rank, shape)
    spent = round(rank * config.local)
    budget = spent * (outputs + inputs)
    grids = [
        (rows * columns, -abs(outputs / rows - inputs / columns), rows, columns)
        for rows in _divisors(outputs)
        for columns in _divisors(channels)
        if rows * inputs + outputs * columns <= budget
    ]
    _, _, rows, columns = max(grids, default=(0, 0.0, 0, 0))
    return Layout(rank - spent, rows, columns)


@torch.no_grad()
def searched_layout(config: HSVDConfig, weight: Tensor) -> Layout:
    """The layout within the budget that leaves least of ``weight`` (O, C, ...), which is in the basis of the branch.

    Tried are five shares of the rank for blocks and, for each, every grid to which no parts can be added in one
    direction. The squared error of a grid per output channel that follows its deviation grows with what is left, so
    this is the paper's search for the least error.
    """
    shape = tuple(weight.shape)
    outputs, channels, inputs = shape[0], shape[1], _columns(shape)
    rank, flat = clipped_rank(config.rank, shape), weight.detach().double().flatten(1)
    u, s, vh = torch.linalg.svd(flat, full_matrices=False)
    best, layouts = (float("inf"), Layout(rank, 0, 0)), _divisors(channels)
    for spent in sorted({round(rank * share) for share in _SHARES}):
        used = rank - spent
        rest = flat - (u[:, :used] * s[:used]) @ vh[:used]
        left, budget = float(s[used:].square().sum()), spent * (outputs + inputs)
        tried = [(0, 0)]
        for rows in _divisors(outputs):
            fitting = [columns for columns in layouts if rows * inputs + outputs * columns <= budget]
            tried += [(rows, fitting[-1])] if fitting else []
        for rows, columns in tried:
            removed = _block_energy(rest.reshape(shape), rows, columns) if rows else 0.0
            best = min(best, (left - removed, Layout(used, rows, columns)))
    return best[1]


_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def _block_energy(rest: Tensor, rows: int, columns: int) -> float:
    """Sum over blocks of their largest squared singular value."""
    blocks = rest.reshape(rows, rest.shape[0] // rows, columns, -1).transpose(1, 2)
    tall = blocks.shape[2] > blocks.shape[3]
    gram = blocks.mT @ blocks if tall else blocks @ blocks.mT
    return float(torch.linalg.eigvalsh(gram)[..., -1].sum())


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _columns(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape[1:]:
        count *= size
    return count


@BRANCHES.register(HSVDConfig)
class HSVD(nn.Module):
    """L1 L2 + blocks u v^T, all learned; ``basis: scaled`` decomposes W phi and divides phi out of the right factors.

    ``block_left`` (O, Q): u of the block in row o and column q at [o, q]. ``block_right`` (Q P, C / Q, ...): v of block
    (p, q) at [q P + p]. The blocks run as two grouped operations, so that nothing is multiplied out. With
    ``basis: rotated`` the weight it is given is rotated, as in the paper (singular values are the same without a
    rotation, the energy of single blocks is not).
    """

    @staticmethod
    def layout(config: HSVDConfig, shape: tuple[int, ...]) -> Layout:
        """See :func:`layout`."""
        return layout(config, shape)

    def __init__(self, config: HSVDConfig, shape: tuple[int, ...], name: str) -> None:
        super().__init__()
        rank, self.rows, self.columns = self.layout(config, shape)
        self.basis = config.basis
        self.left = nn.Parameter(torch.zeros(shape[0], rank))
        self.right = nn.Parameter(torch.zeros(rank, *shape[1:]))
        self.block_left = nn.Parameter(torch.zeros(shape[0], self.columns))
        size = shape[1] // max(self.columns, 1)
        self.block_right = nn.Parameter(torch.zeros(self.columns * self.rows, size, *shape[2:]))

    @torch.no_grad()
    def calibrate(self, weight: Tensor, phi: Tensor) -> None:
        """Decompose, in float64: first the whole, then the blocks of the rest."""
        scale = phi.double() if self.basis == "scaled" else torch.ones_like(phi, dtype=torch.float64)
        scaled = weight.detach().double() * scale
        left, right = truncated_svd(scaled.flatten(1), self.left.shape[1])
        self.left.copy_(left)
        self.right.copy_(right.reshape(self.right.shape) / scale)
        if self.rows:
            self._decompose_blocks((scaled.flatten(1) - left @ right).reshape(weight.shape), scale)

    def _decompose_blocks(self, rest: Tensor, scale: Tensor) -> None:
        outputs, channels = rest.shape[:2]
        height, width = outputs // self.rows, channels // self.columns
        blocks = rest.reshape(self.rows, height, self.columns, -1).transpose(1, 2)  # (P, Q, s_o, s_i)
        u, s, vh = torch.linalg.svd(blocks, full_matrices=False)
        root = s[..., :1].sqrt()
        self.block_left.copy_((u[..., 0] * root).transpose(1, 2).reshape(outputs, self.columns))
        right = (vh[..., 0, :] * root).reshape(self.rows, self.columns, width, *rest.shape[2:]).transpose(0, 1)
        factor = scale.expand(channels, *scale.shape[1:]).reshape(self.columns, 1, width, *scale.shape[1:])
        self.block_right.copy_((right / factor).reshape(self.block_right.shape))

    def matrix(self) -> Tensor:
        """L1 L2 and the blocks, shaped like the weight."""
        whole = product(self.left, self.right)
        if not self.rows:
            return whole
        left = self.block_left.reshape(self.rows, -1, self.columns)
        right = self.block_right.reshape(self.columns, self.rows, *self.block_right.shape[1:]).flatten(2)
        return whole + torch.einsum("phq,qpw->phqw", left, right).reshape(whole.shape)

    def apply(self, x: Tensor, op: Op) -> Tensor:  # type: ignore[override]
        """L1 (L2 x) and, block row by block row, the sum over block columns."""
        return hierarchical(x, op, self.factors())

    def factors(self) -> tuple[Tensor, ...]:
        """L1 (O, r), L2 (r, C, ...), ``block_left`` (O, Q) and ``block_right`` (Q P, C / Q, ...)."""
        return self.left, self.right, self.block_left, self.block_right


def hierarchical(x: Tensor, op: Op, factors: tuple[Tensor, ...]) -> Tensor:
    """The branch (B, O, ...) on a padded input (B, C, ...); as many multiplications per position as it has numbers."""
    left, right, block_left, block_right = factors
    columns = block_left.shape[1]
    if not columns:
        return op.pointwise(op(x, right), left)
    rows = block_right.shape[0] // columns
    inner = op.transposed(op.grouped(x, block_right, columns), columns)
    blocks = op.grouped_pointwise(inner, block_left, rows)
    return blocks + op.pointwise(op(x, right), left) if left.shape[1] else blocks
