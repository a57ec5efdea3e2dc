"""The interface of a low-rank branch: the skip L1 L2 beside the quantized weight, the adapter F1 F2 inside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor, nn

from qartsr.registry import Registry


class Operation(Protocol):
    """The layer's operation, as far as a branch needs it."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolution or matrix product of an already padded ``x``."""

    def pointwise(self, x: Tensor, weight: Tensor) -> Tensor:
        """1x1 convolution or matrix product with ``weight`` (O, r)."""


class AbstractBranch(nn.Module, ABC):
    """A matrix of the weight's shape, of low rank. Law of the skip: ``residual + matrix == weight``."""

    @abstractmethod
    def calibrate(self, weight: Tensor, phi: Tensor) -> None:
        """Initial values from the weight (O, C, ...) and the transform's phi, broadcastable to it."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """The branch multiplied out, shape of the weight (or a scalar 0)."""

    @abstractmethod
    def apply(self, x: Tensor, operation: Operation) -> Tensor:
        """The branch on an already padded input, as two thin operations."""

    @abstractmethod
    def factors(self) -> tuple[Tensor, ...]:
        """(left (O, r), right (r, C, ...)), or nothing."""


BRANCHES: Registry[AbstractBranch] = Registry("branch")
"""``BRANCHES.build(config, shape=weight.shape, name=layer_name)``."""
