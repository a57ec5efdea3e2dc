"""Hadamard matrices, and the rotation of channels by them (QuaRot, 2404.00456; Q-DiT4SR, 2602.01273).

H has entries +-1 / sqrt(n) and H H^T = 1. x H and W H give the product of x and W, but every channel of x H is a mean
over all channels of x: no single one is large. Orders are n = m 2^k, m one of 1, 12, 20, 28, 36, 44, ...: Paley's
matrices, doubled by Sylvester's rule; channels whose number is none of these are rotated in equal blocks.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from qartsr.config.parts import HadamardConfig
from qartsr.transforms.family import TRANSFORMS, Stored, no_candidates

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


@functools.cache
def hadamard(order: int) -> Matrix:
    """(n, n) of +-1 whose rows are orthogonal. Raises ValueError for an order that is not m 2^k, see the module."""
    core = _core(order)
    if core is None:
        raise ValueError(f"no Hadamard matrix of order {order} is known here")
    found = _paley(core)
    while len(found) < order:
        found = np.kron(found, np.array([[1.0, 1.0], [1.0, -1.0]]))
    return found


@functools.cache
def block_order(channels: int, most: int) -> int:
    """The largest order, at most ``most``, that divides ``channels``; 1 (the identity) for an odd number."""
    return max(n for n in range(1, min(channels, most) + 1) if channels % n == 0 and _core(n) is not None)


def _core(order: int) -> int | None:
    """The smallest m = order / 2^k that Paley's constructions reach; None if there is none."""
    core = order
    while core % 2 == 0 and core > 4:
        core //= 2
    while core <= order:
        if core <= 2 or _prime(core - 1) % 4 == 3 or (core % 4 == 0 and _prime(core // 2 - 1) % 4 == 1):
            return core
        core *= 2
    return None


def _prime(number: int) -> int:
    """``number`` if it is an odd prime, else 0."""
    odd = number > 2 and number % 2 == 1
    return number if odd and all(number % divisor for divisor in range(3, int(number**0.5) + 1, 2)) else 0


def _paley(order: int) -> Matrix:
    """Order 1 or 2; Paley's first construction for order - 1 = 3 mod 4, else his second, order / 2 - 1 = 1 mod 4."""
    if order <= 2:
        return np.array([[1.0, 1.0], [1.0, -1.0]])[:order, :order]
    first = _prime(order - 1) % 4 == 3
    q = order - 1 if first else order // 2 - 1
    character = np.full(q, -1.0)
    character[np.unique(np.arange(1, q) ** 2 % q)] = 1
    character[0] = 0
    bordered = np.zeros((q + 1, q + 1))
    bordered[0, 1:], bordered[1:, 0] = 1, -1 if first else 1
    bordered[1:, 1:] = character[(np.arange(q)[:, None] - np.arange(q)) % q]
    if first:
        return np.asarray(np.eye(q + 1) + bordered)
    return np.kron(bordered, np.array([[1, 1], [1, -1]])) + np.kron(np.eye(q + 1), np.array([[1, -1], [-1, -1]]))


@functools.cache
def _factors(order: int) -> tuple[Matrix, Matrix]:
    """H = left (x) right, normalised, both about sqrt(order) wide."""
    core = _core(order) or 1
    left = core
    while left * left < order and order % (2 * left) == 0:
        left *= 2
    right = order // left
    return hadamard(left) / left**0.5, hadamard(right) / right**0.5


def rotated(x: Tensor, order: int, dim: int = -1, back: bool = False) -> Tensor:
    """X H along ``dim`` of ``x`` (any shape), in blocks of ``order`` channels; ``back``: x H^T, which undoes it.

    Two products with matrices of about sqrt(order) columns: some 2 sqrt(order) multiplications per channel.
    """
    if order == 1:
        return x
    left, right = (torch.from_numpy(factor).to(x) for factor in _factors(order))
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
        self.order, self.dim = block_order(shape[1], config.block), 1 - len(shape)
        self.register_buffer("phi", torch.ones(shape[1]), persistent=False)
        self.register_buffer("delta", torch.zeros(shape[1]), persistent=False)

    def calibrate(self, absmax: Tensor, weight: Tensor) -> None:
        """Nothing to set."""

    def candidates(self, absmax: Tensor, weight: Tensor) -> Tensor:
        """None."""
        return no_candidates(weight)

    def adopt(self, phi: Tensor) -> None:
        """There is no phi to set: raises ValueError."""
        raise ValueError("a rotation has no phi to set")

    def input(self, x: Tensor) -> Tensor:
        """X H over the channels."""
        return rotated(x, self.order, self.dim)

    def weight(self, weight: Tensor) -> Tensor:
        """V H over the input channels."""
        return rotated(weight, self.order, 1)

    def bias(self, weight: Tensor) -> Tensor:
        """Zeros, (O,)."""
        return weight.new_zeros(weight.shape[0])

    def input_factors(self) -> tuple[Tensor, Tensor]:
        """Ones and zeros."""
        return self.phi, self.delta
