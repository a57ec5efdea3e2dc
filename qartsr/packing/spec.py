"""What is stored for each layer, as JSON: enough to lay out its tensors before any of them is read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from qartsr.config.base import Config

CodeBits = Literal[0, 2, 3, 4, 5, 6, 7, 8]
"""0: floating point"""
TransformKind = Literal["none", "scale", "affine"]


class LayerSpec(Config):
    """One convolution or linear layer: y = skip(x) + op(Q((x - delta) / phi), weight, bias)."""

    shape: tuple[int, ...] = Field(min_length=2, max_length=4)
    """of the weight, (O, C) or (O, C, k, k); the bias is (O,)"""
    weight_bits: CodeBits
    per_channel: bool
    """one weight grid per output channel, or one for all"""
    bias_bits: CodeBits
    input_bits: CodeBits
    transform: TransformKind
    rank: int = Field(ge=0, le=4096)
    """of the skip branch; 0: there is none"""
