"""What a layer computes, without its numbers: a convolution's geometry, or a matrix product."""

from __future__ import annotations

from dataclasses import dataclass

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

    def channels_last(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H, W, C), a view."""
        return x.permute(0, 2, 3, 1)


@dataclass(frozen=True)
class LinearOp:
    """A matrix product over the last dimension."""

    def pad(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x`` (..., C) times ``weight`` (O, C)."""
        return F.linear(x, weight, bias)

    def pointwise(self, x: Tensor, matrix: Tensor) -> Tensor:
        """``matrix`` (O, r) at every position."""
        return F.linear(x, matrix)

    def channels_last(self, x: Tensor) -> Tensor:
        """``x`` itself."""
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
