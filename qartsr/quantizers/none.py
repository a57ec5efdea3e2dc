"""No quantization: the null object of the family."""

from __future__ import annotations

from torch import Tensor

from qartsr.config.parts import NoQuantizerConfig
from qartsr.quantizers.base import QUANTIZERS, AbstractQuantizer
from qartsr.quantizers.grid import Grid
from qartsr.quantizers.sample import Sample


@QUANTIZERS.register(NoQuantizerConfig)
class NoQuantizer(AbstractQuantizer):
    """Leaves the tensor in floating point."""

    def __init__(self, config: NoQuantizerConfig, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.granularity = "tensor"

    def calibrate(self, sample: Sample) -> None:
        """Nothing to set."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x

    def grid(self, x: Tensor) -> Grid:
        """Raises ValueError: floating point has no grid."""
        raise ValueError("a floating-point tensor has no grid")
