"""What a layer computes, without its numbers: a convolution's geometry, or a matrix product."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Conv2dOp:
    """A 2-D convolution without groups. The padding is done by :meth:`pad`, before any transform or quantizer."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def pad(self, x: Tensor) -> Tensor:
        """``x`` (B, C, H, W) with its zero border: zero is a value of x, not of (x - delta) / phi."""
        rows, columns = self.padding
        return F.pad(x, (columns, columns, rows, rows)) if rows or columns else x

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve the padded ``x``."""
        return F.conv2d(x, weight, bias, self.stride, 0, self.dilation)

    def pointwise(self, x: Tensor, matrix: Tensor) -> Tensor:
        """``matrix`` (O, r) at every position."""
        return F.conv2d(x, matrix[:, :, None, None])

    def grouped(self, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        """Convolve the padded ``x`` in ``groups`` of channels; ``weight`` (groups r, C / groups, k, k)."""
        return F.conv2d(x, weight, None, self.stride, 0, self.dilation, groups)

    def grouped_pointwise(self, x: Tensor, matrix: Tensor, groups: int) -> Tensor:
        """``matrix`` (O, C / groups) at every position, group by group."""
        return F.conv2d(x, matrix[:, :, None, None], groups=groups)

    def transposed(self, x: Tensor, groups: int) -> Tensor:
        """Channels (group, i) of ``x`` at places (i, group)."""
        return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)

    def patches(self, x: Tensor, shape: tuple[int, ...], index: Tensor) -> Tensor:
        """(N, C, k, k): what a weight of ``shape`` sees of the padded ``x`` at output positions ``index`` (N,).

        Positions count through batch, rows and columns of the output, see :meth:`positions`.
        """
        _, rows, columns = self._outputs(x, shape)
        batch, row, column = index // (rows * columns), index // columns % rows, index % columns
        taps = [torch.arange(size, device=x.device) * step for size, step in zip(shape[2:], self.dilation, strict=True)]
        below = row[:, None] * self.stride[0] + taps[0]
        across = column[:, None] * self.stride[1] + taps[1]
        return x[batch[:, None, None], :, below[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)

    def positions(self, x: Tensor, shape: tuple[int, ...]) -> int:
        """Number of output positions of the padded ``x`` (B, C, H, W) under a weight of ``shape``."""
        return math.prod(self._outputs(x, shape))

    def _outputs(self, x: Tensor, shape: tuple[int, ...]) -> tuple[int, int, int]:
        rows, columns = (
            (size - dilation * (taps - 1) - 1) // stride + 1
            for size, dilation, taps, stride in zip(x.shape[2:], self.dilation, shape[2:], self.stride, strict=True)
        )
        return x.shape[0], rows, columns

    def channels_last(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H, W, C), a view."""
        return x.permute(0, 2, 3, 1)


@dataclass(frozen=True)
class LinearOp:
    """A matrix product over the last dimension."""

    def pad(self, x: Tensor) -> Tensor:
        """``x`` itself, of any shape."""
        return x

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x`` (..., C) times ``weight`` (O, C)."""
        return F.linear(x, weight, bias)

    def pointwise(self, x: Tensor, matrix: Tensor) -> Tensor:
        """``matrix`` (O, r) at every position."""
        return F.linear(x, matrix)

    def grouped(self, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        """Multiply in ``groups`` of channels; ``weight`` (groups r, C / groups)."""
        parts = x.unflatten(-1, (groups, -1))
        return torch.einsum("...gc,grc->...gr", parts, weight.unflatten(0, (groups, -1))).flatten(-2)

    def grouped_pointwise(self, x: Tensor, matrix: Tensor, groups: int) -> Tensor:
        """``matrix`` (O, C / groups) at every position, group by group."""
        return self.grouped(x, matrix, groups)

    def transposed(self, x: Tensor, groups: int) -> Tensor:
        """Channels (group, i) of ``x`` at places (i, group)."""
        return x.unflatten(-1, (groups, -1)).transpose(-1, -2).flatten(-2)

    def patches(self, x: Tensor, shape: tuple[int, ...], index: Tensor) -> Tensor:
        """(N, C): the vectors of ``x`` at positions ``index`` (N,)."""
        return x.reshape(-1, x.shape[-1])[index]

    def positions(self, x: Tensor, shape: tuple[int, ...]) -> int:
        """Number of vectors in ``x`` (..., C)."""
        return x.numel() // x.shape[-1]

    def channels_last(self, x: Tensor) -> Tensor:
        """``x`` itself: (..., C) already."""
        return x


LayerOp = Conv2dOp | LinearOp


def op_of(module: nn.Module) -> LayerOp:
    """The operation of an nn.Conv2d or nn.Linear. Raises ValueError for grouped, transposed or oddly padded ones."""
    if isinstance(module, nn.Linear):
        return LinearOp()
    if not isinstance(module, nn.Conv2d):
        raise ValueError(f"{type(module).__name__} is neither Conv2d nor Linear")
    if module.groups != 1:
        raise ValueError("grouped convolutions cannot be quantized")
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise ValueError("only convolutions padded with a number of zeros can be quantized")
    stride, padding, dilation = module.stride, module.padding, module.dilation
    return Conv2dOp((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]))
