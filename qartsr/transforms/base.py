"""The interface of an equivalent transform between a layer's input and its weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from qartsr.registry import Registry


class Factors(NamedTuple):
    """What a packed layer needs: input(x) = (x - shift) / scale. Both broadcast to the input."""

    scale: Tensor
    shift: Tensor


class AbstractTransform(nn.Module, ABC):
    """Law: ``weight(V) @ input(x) + bias(V) == V @ x``."""

    @abstractmethod
    def calibrate(self, input_absmax: Tensor, weight: Tensor) -> None:
        """Initial values from the largest |x| per input channel (C,) and the weight (O, C, ...)."""

    @abstractmethod
    def input(self, x: Tensor) -> Tensor:
        """The transformed input."""

    @abstractmethod
    def weight(self, v: Tensor) -> Tensor:
        """The transformed weight, shape of ``v``."""

    @abstractmethod
    def bias(self, v: Tensor) -> Tensor:
        """What the output bias must gain: (O,), or a scalar 0."""

    @abstractmethod
    def factors(self) -> Factors:
        """Scale and shift of the input."""


TRANSFORMS: Registry[AbstractTransform] = Registry("transform")
"""``TRANSFORMS.build(config, shape=(1, C, 1, 1))`` for convolutions, ``shape=(C,)`` for linear layers."""
