"""The interface of transforms, and the table from their configuration to their classes."""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor

from qartsr.artifact.spec import TransformKind
from qartsr.registry import Registry

Stored = TransformKind
"""What a package holds of a transform: nothing, phi, phi and delta, or the order of a rotation."""


class Transform(Protocol):
    """A change of basis of the input channels. Its one law: ``weight(V) @ input(x) + bias(V) == V @ x``."""

    stored: ClassVar[Stored]
    mixes: ClassVar[bool]
    """whether channels are mixed; then histograms per channel say nothing about what the quantizer sees"""

    def calibrate(self, absmax: Tensor, weight: Tensor) -> None:
        """Set initial values from the largest input magnitude per channel, (C,), and the weight."""

    def candidates(self, absmax: Tensor, weight: Tensor) -> Tensor:
        """(K, C) values of phi among which the least error of the layer's output decides; K = 0: nothing to decide."""

    def adopt(self, phi: Tensor) -> None:
        """Start from ``phi`` (C,), one of the candidates."""

    def input(self, x: Tensor) -> Tensor:
        """(x - delta) / phi, or rotated; ``x`` is (B, C, H, W) for a convolution, (..., C) for a linear layer."""

    def weight(self, weight: Tensor) -> Tensor:
        """The weight in the new basis, ``V phi``, shaped like ``weight``: (O, C, k, k) or (O, C)."""

    def bias(self, weight: Tensor) -> Tensor:
        """``V delta``, (O,)."""

    def input_factors(self) -> tuple[Tensor, Tensor]:
        """``phi`` > 0 and ``delta``, both (C,)."""


TRANSFORMS: Registry[Transform] = Registry("transform")
"""``build(config, shape=shape of the weight)``."""


def no_candidates(weight: Tensor) -> Tensor:
    """(0, C)."""
    return weight.new_zeros(0, weight.shape[1])


def per_channel(vector: Tensor, ndim: int) -> Tensor:
    """(C,) shaped to broadcast over inputs and weights alike: (C, 1, 1) for convolutions, (C,) for linear layers."""
    return vector.reshape(-1, *(1,) * (ndim - 2))
