"""What is stored for each layer, as JSON: enough to lay out its tensors before any of them is read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from qartsr.config.base import Config


class TensorSpec(Config):
    """One weight or bias. ``bits`` 0: floating point; otherwise codes, with one grid or one per output channel."""

    shape: tuple[int, ...] = Field(min_length=1, max_length=4)
    bits: Literal[0, 2, 3, 4, 5, 6, 7, 8]
    per_channel: bool = False


class LayerSpec(Config):
    """One convolution or linear layer: y = skip(x) + op(Q(transform(x)), weight, bias)."""

    weight: TensorSpec
    bias: TensorSpec
    input_bits: Literal[0, 2, 3, 4, 5, 6, 7, 8]
    """0: the input is not quantized"""
    transform: Literal["none", "scale", "affine"]
    rank: int = Field(ge=0, le=4096)
    """of the skip branch; 0: there is none"""
