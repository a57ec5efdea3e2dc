"""The interface of transforms, and the table from their configuration to their classes."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from qartsr.registry import Registry


class Transform(Protocol):
    """A change of basis per input channel. Its one law: ``weight(V) @ input(x) + bias(V) == V @ x``."""

    def calibrate(self, absmax: Tensor, weight: Tensor) -> None:
        """Set initial values from the largest input magnitude per channel, (C,), and the weight."""

    def input(self, x: Tensor) -> Tensor:
        """(x - delta) / phi; ``x`` is (B, C, H, W) for a convolution, (..., C) for a linear layer."""

    def weight(self, weight: Tensor) -> Tensor:
        """V phi, shape of ``weight``: (O, C, k, k) or (O, C)."""

    def bias(self, weight: Tensor) -> Tensor:
        """V delta, (O,)."""

    def input_factors(self) -> tuple[Tensor, Tensor]:
        """Phi > 0 and delta, both (C,)."""


TRANSFORMS: Registry[Transform] = Registry("transform")
"""``build(config, shape=shape of the weight)``."""


def per_channel(vector: Tensor, ndim: int) -> Tensor:
    """(C,) shaped to broadcast over inputs and weights alike: (C, 1, 1) for convolutions, (C,) for linear layers."""
    return vector.reshape(-1, *(1,) * (ndim - 2))
