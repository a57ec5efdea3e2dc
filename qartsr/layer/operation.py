"""The two operations a layer can be, as frozen values: padding apart, so that it can come before the quantizer."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Convolution:
    """2-D convolution. ``padding``: (left, right, top, bottom) zeros."""

    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]

    def pad(self, x: Tensor) -> Tensor:
        """Zeros around (B, C, H, W): 0 is a value of x, not of (x - delta) / phi."""
        return F.pad(x, self.padding) if any(self.padding) else x

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolution of a padded ``x``."""
        return F.conv2d(x, weight, bias, self.stride, 0, self.dilation)

    def pointwise(self, x: Tensor, weight: Tensor) -> Tensor:
        """1x1 convolution with ``weight`` (O, r)."""
        return F.conv2d(x, weight[:, :, None, None])

    def channels(self, count: int) -> tuple[int, ...]:
        """Shape of a per-input-channel factor that broadcasts to input and weight."""
        return (1, count, 1, 1)


@dataclass(frozen=True)
class Product:
    """Matrix product over the last dimension."""

    def pad(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x W^T + b."""
        return F.linear(x, weight, bias)

    def pointwise(self, x: Tensor, weight: Tensor) -> Tensor:
        """x W^T."""
        return F.linear(x, weight)

    def channels(self, count: int) -> tuple[int, ...]:
        """Shape of a per-input-channel factor that broadcasts to input and weight."""
        return (count,)


Op = Convolution | Product


def operation_of(module: nn.Module) -> Op:
    """The operation of an nn.Conv2d or nn.Linear. Raises ValueError for grouped or non-zero-padded convolutions."""
    if isinstance(module, nn.Linear):
        return Product()
    if not isinstance(module, nn.Conv2d):
        raise ValueError(f"{type(module).__name__} is neither nn.Conv2d nn.Linear")
    if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise ValueError("only ungrouped convolutions with explicit zero padding can be quantized")
    vertical, horizontal = module.padding
    padding = (horizontal, horizontal, vertical, vertical)
    return Convolution((module.stride[0], module.stride[1]), padding, (module.dilation[0], module.dilation[1]))
