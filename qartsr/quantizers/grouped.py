"""Several ranges along the channels: groups of a weight's input channels, and the parts of a joined input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.quantizers.fake import fake_quantize
from qartsr.quantizers.family import Quantizer
from qartsr.quantizers.grid import Grid
from qartsr.quantizers.own_range import OwnRange
from qartsr.quantizers.stats import RangeStats


def group_size(channels: int, most: int) -> int:
    """Channels per group: the largest divisor of ``channels`` that is at most ``most``, so that groups are equal."""
    return max(size for size in range(1, min(most, channels) + 1) if channels % size == 0)


class Grouped(nn.Module):
    """One range per output channel and group of input channels (SVDQuant's weights: groups of 64; EfficientQAT).

    ``inner`` has shape (O G, 1) and sees the weight (O, C, ...) as rows of one group each. Convolutions group by input
    channel, all taps of a channel together.
    """

    def __init__(self, inner: Quantizer, channels: int, size: int) -> None:
        super().__init__()
        self.inner: Quantizer = inner
        self.size, self.groups = size, channels // size

    def _rows(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0] * self.groups, -1)

    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """From the weight itself, or from statistics with as many groups as there are ranges."""
        self.inner.calibrate(self._rows(stats) if isinstance(stats, Tensor) else stats)

    def grid(self, x: Tensor) -> Grid:
        """Scale and offset of every channel, (O, C, 1, ...)."""
        scale, offset, levels = self.compact(x)
        return Grid(scale.repeat_interleave(self.size, 1), offset.repeat_interleave(self.size, 1), levels)

    def compact(self, x: Tensor) -> Grid:
        """Scale and offset of every group, (O, G, 1, ...)."""
        grid = self.inner.grid(self._rows(x))
        shape = (x.shape[0], self.groups, *(1 for _ in x.shape[2:]))
        return Grid(grid.scale.reshape(shape), grid.offset.reshape(shape), grid.levels)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` rounded to its grid, shaped like ``x``."""
        return self.inner(self._rows(x)).reshape(x.shape)


def spread_parts(values: Tensor, widths: Tensor, tail: int) -> Tensor:
    """(2,) one value per part -> (C, 1, ...) one per channel, followed by ``tail`` dimensions of 1."""
    return values.repeat_interleave(widths).reshape(-1, *(1,) * tail)


class Sliced(nn.Module):
    """Two parts of an input's channels, one range for each (Q-Diffusion's split; PassionSR; QuantVSR).

    ``inner`` has shape (2, 1); the first ``boundary`` channels of x, (B, C, H, W) or (..., C), are the first part;
    ``tail``: dimensions that follow the channels. The weight's ranges are its own affair (:class:`Grouped`). Deviation:
    the parts of a linear layer's input are channels, where PassionSR's code halves the tokens by mistake.
    """

    widths: Tensor

    def __init__(self, inner: Quantizer, boundary: int, channels: int, tail: int = 2) -> None:
        super().__init__()
        self.inner: Quantizer = inner
        self.boundary, self._tail = boundary, tail
        self.register_buffer("widths", torch.tensor([boundary, channels - boundary]), persistent=False)

    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """From statistics of two groups."""
        self.inner.calibrate(stats)

    def grid(self, x: Tensor) -> Grid:
        """Scale and offset of every channel, (C, 1, 1) or (C,)."""
        scale, offset, levels = self.compact(x)
        scale, offset = (spread_parts(values, self.widths, self._tail) for values in (scale, offset))
        return Grid(scale, offset, levels)

    def compact(self, x: Tensor) -> Grid:
        """Scale and offset of both parts, (2,)."""
        grid = self.inner.grid(x)
        return Grid(grid.scale[:, 0], grid.offset[:, 0], grid.levels)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` rounded to its grid, shaped like ``x``."""
        return fake_quantize(x, self.grid(x), getattr(self.inner, "beyond", 0.0))


class SlicedOwn(nn.Module):
    """Two parts of an input's channels, each on the grid between its own ends as they come (QuantVSR's inputs)."""

    def __init__(self, bits: int, boundary: int, channels: int, tail: int) -> None:
        super().__init__()
        self.boundary, self._widths, self._tail = boundary, (boundary, channels - boundary), tail
        self._own = OwnRange(bits)

    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """Nothing to set: the ranges follow the tensor."""

    def grid(self, x: Tensor) -> Grid:
        """Scale and offset of every channel, (C, 1, 1) or (C,); constants for the gradient."""
        first, second = (self._own.grid(part) for part in x.split(self._widths, -1 - self._tail))
        widths = torch.tensor(self._widths, device=x.device)
        scale, offset = torch.stack([first.scale, second.scale]), torch.stack([first.offset, second.offset])
        scale, offset = (spread_parts(values, widths, self._tail) for values in (scale, offset))
        return Grid(scale, offset, first.levels)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` rounded to its grid, shaped like ``x``."""
        return fake_quantize(x, self.grid(x))
