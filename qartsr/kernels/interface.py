"""What kernels do, and the values they are given. Everything is channels last: (B, H, W, C), rows of C numbers.

A linear layer is a 1 x 1 convolution of (1, 1, M, C).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """A convolution without groups; each pair is (rows, columns). The default is pointwise."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Sides of the output."""
        rows, columns = (
            (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for side, kernel, stride, padding, dilation in zip(
                (height, width), self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        return rows, columns

    @property
    def pointwise(self) -> bool:
        """Output position i needs input position i, and no other."""
        return self == Geometry()


class PackedWeight(NamedTuple):
    """Codes of a weight as a package holds them (docs/artifact.md), and what they are to become."""

    stream: Tensor
    """uint8, the bit stream of (O, C, kh, kw) in row-major order"""
    bits: int
    shape: tuple[int, int, int, int]
    """(O, C, kh, kw)"""
    zero: Tensor
    """(O,) int32, subtracted from the codes of each output channel"""


class InputCodes(NamedTuple):
    """How inputs become codes: a = round(clip(((x - delta) / phi - offset) / scale, 0, levels)) - zero, in fp32."""

    delta: Tensor
    """(C,) fp32; no elements, like ``phi``, where there is no transform"""
    phi: Tensor
    """(C,) fp32"""
    grid: Tensor
    """(2,) fp32 scale and offset"""
    levels: int
    zero: int


class Affine(NamedTuple):
    """A normalisation as one gain and one shift per image and channel: y = x * gain + shift, each (B, C) fp32."""

    gain: Tensor
    shift: Tensor


class Activation(NamedTuple):
    """Codes of an activated input and, on demand, its values."""

    codes: Tensor
    """(B, H, W, C) int8"""
    values: Tensor
    """(B, H, W, C) in the input's dtype; without elements where they were not asked for"""


class Epilogue(NamedTuple):
    """From the integer sums S and A (of the codes alone, over the same window) to the output.

    y = S scale + A rows + bias + left down + residual, computed in fp32. What is absent has no elements.
    """

    scale: Tensor
    """(O,) fp32"""
    bias: Tensor
    """(1, O), or (B, O) for one bias per image; fp32"""
    rows: Tensor
    """(O,) fp32: step of the input times the rest of the weight's shift; absent where all rests are 0"""
    left: Tensor
    """(O, r)"""
    down: Tensor
    """(B, OH, OW, r) in the dtype of ``left``"""
    residual: Tensor
    """(B, OH, OW, O), any floating dtype"""


class Kernels(Protocol):
    """The five operations; all run in stream order, without waiting for the device."""

    def unpack(self, weight: PackedWeight) -> Tensor:
        """Shifted codes, (O, kh, kw, C) int8."""
        ...

    def group_norm(self, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Affine:
        """The affine map that GroupNorm is on ``x`` (B, H, W, C); moments in fp32."""
        ...

    def quantize(self, x: Tensor, codes: InputCodes) -> Tensor:
        """Codes of ``x`` (B, H, W, C), int8."""
        ...

    def activate(self, x: Tensor, norm: Affine, codes: InputCodes, keep: bool) -> Activation:
        """Codes of SiLU(norm(x)), int8 (B, H, W, C) as ``x``, and its values if ``keep``."""
        ...

    def product(
        self, codes: Tensor, weight: Tensor, border: Tensor, geometry: Geometry, epilogue: Epilogue, dtype: torch.dtype
    ) -> Tensor:
        """Convolve ``codes`` (B, H, W, C), which continue as ``border`` (C,) beyond their edge -> (B, OH, OW, O).

        ``border`` is int8, and has no elements where it is 0. The sums are exact integers, so the result does not
        depend on how the work is cut into pieces.
        """
        ...


def batch_rows(epilogue: Epilogue, batch: int) -> Tensor:
    """The bias as (B or 1, 1, 1, O). Raises ValueError when it belongs to another batch."""
    count, outputs = epilogue.bias.shape
    if count not in (1, batch):
        raise ValueError(f"{count} biases for {batch} images")
    return epilogue.bias.view(count, 1, 1, outputs)
