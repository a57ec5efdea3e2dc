"""The rotation of channels by Hadamard matrices (QuaRot, 2404.00456; Q-DiT4SR, 2602.01273).

x H and W H give the product of x and W, but every channel of x H is a mean over all channels of x: no single one is
large. Channels whose number is no order of a matrix (:mod:`qartsr.artifact.hadamard`) are rotated in equal blocks.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from qartsr.artifact.hadamard import block_order, factors
from qartsr.config.parts import HadamardConfig
from qartsr.transforms.family import TRANSFORMS, Stored, no_candidates

__all__ = ["Hadamard", "block_order", "rotated"]


def rotated(x: Tensor, order: int, dim: int = -1, back: bool = False) -> Tensor:
    """X H along ``dim`` of ``x`` (any shape), in blocks of ``order`` channels; ``back``: x H^T, which undoes it.

    Two products with matrices of about sqrt(order) columns: some 2 sqrt(order) multiplications per channel.
    """
    if order == 1:
        return x
    left, right = (torch.from_numpy(factor).to(x) for factor in factors(order))
    if back:
        left, right = left.T, right.T
    parts = x.movedim(dim, -1).unflatten(-1, (-1, len(left), len(right)))
    turned = torch.einsum("...ab,ac->...cb", parts @ right, left)
    return turned.flatten(-3).movedim(-1, dim)


@TRANSFORMS.register(HadamardConfig)
class Hadamard(nn.Module):
    """X H and W H; nothing is learned or stored but the order. Its factors phi are 1: what is mixed has none."""

    stored: ClassVar[Stored] = "hadamard"
    mixes: ClassVar[bool] = True

    phi: Tensor
    delta: Tensor

    def __init__(self, config: HadamardConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        apart = config.halves and shape[1] % 2 == 0  # blocks that divide half the channels lie in one half each
        self.order, self.dim = block_order(shape[1] // 2 if apart else shape[1], config.block), 1 - len(shape)
        self.register_buffer("phi", torch.ones(shape[1]), persistent=False)
        self.register_buffer("delta", torch.zeros(shape[1]), persistent=False)

    def calibrate(self, absmax: Tensor, weight: Tensor) -> None:
        """Nothing to set."""

    def candidates(self, absmax: Tensor, weight: Tensor) -> Tensor:
        """(0, C)."""
        return no_candidates(weight)

    def adopt(self, phi: Tensor) -> None:
        """There is no phi to set: raises ValueError."""
        raise ValueError("a rotation has no phi to set")

    def input(self, x: Tensor) -> Tensor:
        """``x H`` over the channels, shaped like ``x``."""
        return rotated(x, self.order, self.dim)

    def weight(self, weight: Tensor) -> Tensor:
        """``V H`` over the input channels, shaped like ``V``."""
        return rotated(weight, self.order, 1)

    def bias(self, weight: Tensor) -> Tensor:
        """Zeros, (O,)."""
        return weight.new_zeros(weight.shape[0])

    def input_factors(self) -> tuple[Tensor, Tensor]:
        """Ones and zeros, both (C,)."""
        return self.phi, self.delta
