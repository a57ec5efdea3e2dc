"""Hadamard matrices: those that packages name by their order.

H has entries +-1 / sqrt(n) and H H^T = 1. Orders are n = m 2^k, m one of 1, 12, 20, 28, 36, 44, ...: Paley's matrices,
doubled by Sylvester's rule.
"""

from __future__ import annotations

import functools

import numpy as np

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
def factors(order: int) -> tuple[Matrix, Matrix]:
    """H = left (x) right, normalised, both about sqrt(order) wide."""
    core = _core(order) or 1
    left = core
    while left * left < order and order % (2 * left) == 0:
        left *= 2
    right = order // left
    return hadamard(left) / left**0.5, hadamard(right) / right**0.5
