"""Several ranges along the channels: groups of a weight's input channels, and the parts of a joined input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.quantizers.fake import fake_quantize
from qartsr.quantizers.family import Quantizer
from qartsr.quantizers.grid import Grid
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
        """Fake quantization."""
        return self.inner(self._rows(x)).reshape(x.shape)


def spread_parts(values: Tensor, widths: Tensor) -> Tensor:
    """(2,) one value per part -> (C, 1, 1) one per channel."""
    return values.repeat_interleave(widths)[:, None, None]


class Sliced(nn.Module):
    """An input joined of two tensors of different range, one range for each (Q-Diffusion's split; PassionSR).

    ``inner`` has shape (2, 1); the first ``boundary`` channels of x (B, C, H, W) are the first part. Deviation: only
    the input is split, at the true boundary; Q-Diffusion also splits the weight, PassionSR halves every layer of the
    UNet wherever the halves may lie. A weight has one range per output channel or group, which a split refines little.
    """

    widths: Tensor

    def __init__(self, inner: Quantizer, boundary: int, channels: int) -> None:
        super().__init__()
        self.inner: Quantizer = inner
        self.boundary = boundary
        self.register_buffer("widths", torch.tensor([boundary, channels - boundary]), persistent=False)

    def calibrate(self, stats: RangeStats | Tensor) -> None:
        """From statistics of two groups."""
        self.inner.calibrate(stats)

    def grid(self, x: Tensor) -> Grid:
        """Scale and offset of every channel, (C, 1, 1)."""
        scale, offset, levels = self.compact(x)
        return Grid(spread_parts(scale, self.widths), spread_parts(offset, self.widths), levels)

    def compact(self, x: Tensor) -> Grid:
        """Scale and offset of both parts, (2,)."""
        grid = self.inner.grid(x)
        return Grid(grid.scale[:, 0], grid.offset[:, 0], grid.levels)

    def forward(self, x: Tensor) -> Tensor:
        """Fake quantization."""
        return fake_quantize(x, self.grid(x))
