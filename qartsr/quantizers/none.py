"""The null quantizer."""

from __future__ import annotations

from torch import Tensor, nn

from qartsr.config.parts import NoQuantizerConfig
from qartsr.quantizers.family import QUANTIZERS
from qartsr.quantizers.grid import Grid
from qartsr.quantizers.stats import RangeStats


@QUANTIZERS.register(NoQuantizerConfig)
class NoQuantizer(nn.Module):
    """Keeps the tensor in floating point."""

    def __init__(self, config: NoQuantizerConfig, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__()

    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """Nothing to set."""

    def grid(self, x: Tensor) -> Grid:
        """There is none: raises ValueError."""
        raise ValueError("a tensor kept in floating point has no grid")

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x
