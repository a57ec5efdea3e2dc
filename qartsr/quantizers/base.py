"""The interface of a quantizer and the registry of its implementations."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from qartsr.quantizers.grid import Grid
from qartsr.quantizers.sample import Sample
from qartsr.registry import Registry


class AbstractQuantizer(nn.Module, ABC):
    """Puts a tensor on a uniform grid. Law: ``decode(encode(x, grid(x)), grid(x)) == forward(x)``."""

    granularity: str
    """``tensor`` or ``channel`` (dimension 0)"""

    @abstractmethod
    def calibrate(self, sample: Sample) -> None:
        """Set the initial range from weighted values, one row per group."""

    @abstractmethod
    def grid(self, x: Tensor) -> Grid:
        """The grid used for ``x``. Raises ValueError where there is none (floating point)."""


QUANTIZERS: Registry[AbstractQuantizer] = Registry("quantizer")
"""``QUANTIZERS.build(config, bits=4, shape=(O, 1, 1, 1))``: ``shape`` is that of the range, broadcastable to the tensor."""
