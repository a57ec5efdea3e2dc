"""What is stored for each layer, as JSON: enough to lay out its tensors before any of them is read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from qartsr.artifact.base import Config
from qartsr.artifact.hadamard import block_order

_NEW = ("input_token", "rotation", "skip_rotated")
CodeBits = Literal[0, 2, 3, 4, 5, 6, 7, 8]
"""0: floating point"""
TransformKind = Literal["none", "scale", "affine", "hadamard"]


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
    weight_groups: int = Field(1, ge=1)
    """grids per output channel: equal groups of input channels, each with its own"""
    input_dynamic: bool = False
    """the input's grid spans the minimum and maximum of each input; nothing is stored of it"""
    input_split: int = Field(0, ge=0)
    """the first so many input channels have an input grid of their own, stored or dynamic; 0: one grid for all"""
    input_token: bool = False
    """the input's grid is that of normal values with each token's mean square; nothing is stored of it"""
    rotation: int = Field(0, ge=0)
    """order of the Hadamard matrix that rotates the input channels, block by block; 0: there is none"""
    skip_rotated: bool = False
    """the skip branch reads the rotated input"""
    blocks: tuple[int, int] = (0, 0)
    """of the skip branch: parts of the outputs and of the input channels whose blocks have rank 1; 0: there are none"""

    @model_serializer(mode="wrap")
    def _short(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that came with format 2 are written where they say something: a header names thousands of layers."""
        return {key: value for key, value in dump(self).items() if value or key not in _NEW}

    @model_validator(mode="after")
    def _divisible(self) -> LayerSpec:
        outputs, channels = self.shape[:2]
        rows, columns = self.blocks
        if channels % self.weight_groups or (self.weight_groups > 1 and not self.per_channel):
            raise ValueError("weight_groups do not fit the shape")
        if self.input_split and not (self.input_split < channels and self.input_bits):
            raise ValueError("input_split does not fit the shape")
        if self.input_token and (self.input_dynamic or self.input_split or not self.input_bits):
            raise ValueError("input_token does not fit the other input grids")
        if self.transform == "hadamard" and (
            self.rotation < 1 or block_order(channels, self.rotation) != self.rotation
        ):
            raise ValueError("rotation does not fit the shape")
        if (self.transform != "hadamard" and self.rotation) or (self.skip_rotated and not self.rotation):
            raise ValueError("rotation does not fit the transform")
        if (rows or columns) and (min(rows, columns) < 1 or outputs % rows or channels % columns):
            raise ValueError("blocks do not fit the shape")
        return self
