"""A grid between the minimum and maximum of the very tensor: biases, and inputs with dynamic ranges."""

from __future__ import annotations

from torch import Tensor, nn

from qartsr.config.parts import DynamicConfig
from qartsr.quantizers.fake import fake_quantize, range_grid
from qartsr.quantizers.family import QUANTIZERS
from qartsr.quantizers.grid import Grid
from qartsr.quantizers.ranges import usable
from qartsr.quantizers.stats import RangeStats


class OwnRange(nn.Module):
    """Affine grid between the ends of the tensor at hand; nothing is stored.

    A bias is a constant at run time, and so is its grid. An input is not: with a dynamic range (QuantVSR's inputs: per
    tensor, affine, scale detached) every call costs a pass over it, and its batch and its tile decide its codes.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.levels = 2**bits - 1

    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """Nothing to set: the range follows the tensor."""

    def grid(self, x: Tensor) -> Grid:
        """One range for all of ``x``; a constant for the gradient."""
        values = x.detach()
        return range_grid(*usable(values.amin(), values.amax()), self.levels)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` rounded to its grid, shaped like ``x``."""
        return fake_quantize(x, self.grid(x))


@QUANTIZERS.register(DynamicConfig)
def dynamic(config: DynamicConfig, bits: int, shape: tuple[int, ...]) -> OwnRange:
    """One range per tensor, found anew at every call. Raises ValueError for several ranges."""
    if shape:
        raise ValueError("a dynamic range is one for the whole tensor")
    return OwnRange(bits)
