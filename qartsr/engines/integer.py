"""The reference for all engines that compute in integers: slow, plain, and exact in every sum.

Codes are multiplied by codes, summed in 32 bits, with one epilogue in floating point. With shifted codes c_x, c_w
(:mod:`qartsr.packing.integer_grid`) and their grids x = c_x s_x + r_x, w = c_w s_w + r_w:

    sum x w = s_x s_w * sum(c_x c_w)  +  s_x r_w * sum(c_x)  +  r_x * sum(s_w c_w + r_w)
    y = that + bias + L1 L2 x

The first sum is the convolution or matrix product in integers. The second runs over the layer's window of the input,
and is left out where r_w = 0 for all channels; the third is a constant per output channel and part of the bias. r = 0
for grids that contain 0.

CPUs have no fast integer convolution in torch, so the sums are carried in floating point where it is exact: whole
numbers below 2**24 in fp32, below 2**53 in fp64. The bound levels_x * max sum |c_w| is computed for every layer and
holds for every partial sum, in whatever order they are made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from qartsr.errors import QartsrError
from qartsr.layer import LayerOp, LinearOp
from qartsr.models import Backbone, OneStepSR
from qartsr.packing.integer_grid import code_grid
from qartsr.packing.packed_layer import (
    Hierarchical,
    InputAffine,
    InputGrid,
    InputRotation,
    InputScale,
    LowRank,
    NoLowRank,
    PackedLayer,
    PackedTensor,
)
from qartsr.packing.supports import Supports, unsupported_reason
from qartsr.quantizers import Grid, TokenGaussian
from qartsr.quantizers.grid import nearest

_FP32_EXACT, _INT32 = 2**24, 2**31


_BASES = (nn.Identity, InputScale, InputAffine, InputRotation)
_BRANCHES = (NoLowRank, LowRank, Hierarchical)
TOKENS = Supports(inputs=(TokenGaussian,), transforms=_BASES, branches=_BRANCHES)
"""As ``INTEGERS``, each token of a linear layer's input on its own Gaussian grid."""
INTEGERS = Supports(transforms=_BASES, branches=_BRANCHES)
"""Codes on both sides, each on one grid, the weight's perhaps its own for each output channel."""


class IntegerLayer(nn.Module):
    """Takes the place of a PackedLayer that ``INTEGERS`` supports.

    Activation codes are those of the packed layer, bit for bit; outputs differ by the rounding of fp32 sums, which the
    packed layer makes and this one does not. Raises QartsrError where a sum may exceed 32 bits.
    """

    codes: Tensor
    """shifted weight codes, whole numbers in the dtype of the sums"""
    zero: Tensor
    scale: Tensor
    constant: Tensor

    def __init__(self, layer: PackedLayer) -> None:
        super().__init__()
        assert isinstance(layer.weight, PackedTensor) and isinstance(layer.input, InputGrid)
        self.op, self.transform, self.skip, self.inputs = layer.op, layer.transform, layer.skip, layer.input
        self.levels = 2**layer.spec.input_bits - 1
        shape = layer.spec.shape
        weight = code_grid(Grid(layer.weight.grid[0], layer.weight.grid[1], 2**layer.spec.weight_bits - 1))
        inputs = code_grid(Grid(layer.input.grid[0], layer.input.grid[1], self.levels))
        codes = layer.weight.integers().double() - weight.zero
        bound = self.levels * int(codes.abs().flatten(1).sum(1).amax())
        if bound >= _INT32:
            raise QartsrError("sums may exceed 32 bits", f"a layer of shape {shape}", "choose another engine")
        scale, rest = (part.reshape(-1).expand(shape[0]) for part in (weight.scale, weight.rest))
        sums = codes.flatten(1).sum(1) * scale + rest * math.prod(shape[1:])
        self.register_buffer("codes", codes.float() if bound < _FP32_EXACT else codes)
        self.register_buffer("zero", inputs.zero.float())
        self.register_buffer("scale", self._per_channel(inputs.scale * scale))
        self.register_buffer("constant", self._per_channel(layer.bias().double() + inputs.rest * sums))
        self.window = WindowSum(codes, self._per_channel(inputs.scale * rest)) if bool(rest.any()) else NoWindowSum()

    def _per_channel(self, vector: Tensor) -> Tensor:
        """(O,) float64 as fp32 that broadcasts over the output."""
        return vector.float().reshape(-1, *(1 for _ in self.codes.shape[2:]))

    def input_codes(self, x: Tensor) -> Tensor:
        """Shifted codes of a padded input (B, C, H, W) or (..., C), whole numbers in fp32."""
        grid = self.inputs.grid
        return nearest(self.transform(x), Grid(grid[0], grid[1], self.levels)) - self.zero

    def accumulate(self, codes: Tensor) -> Tensor:
        """The sums of products of codes (B, C, H, W) or (..., C), int32."""
        return self.op(codes.to(self.codes.dtype), self.codes).to(torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        """The layer on ``x``, (B, C, H, W) or (..., C), which is padded before transform and codes."""
        x = self.op.pad(x)
        codes = self.input_codes(x)
        y: Tensor = self.accumulate(codes).to(x.dtype) * self.scale + self.constant
        return y + self.window(codes, self.op) + self.skip(x, self.op)


class WindowSum(nn.Module):
    """s_x r_w * sum(c_x) over the layer's window, for weight grids without a 0."""

    ones: Tensor
    factor: Tensor

    def __init__(self, codes: Tensor, factor: Tensor) -> None:
        super().__init__()
        self.register_buffer("ones", torch.ones_like(codes[:1]))
        self.register_buffer("factor", factor)

    def forward(self, codes: Tensor, op: LayerOp) -> Tensor:
        """The term, (B, O, ...)."""
        return op(codes.to(self.ones.dtype), self.ones).to(self.factor.dtype) * self.factor


class NoWindowSum(nn.Module):
    """No such term."""

    def forward(self, codes: Tensor, op: LayerOp) -> Tensor:
        """A scalar 0."""
        return codes.new_zeros(())


class TokenLayer(nn.Module):
    """Takes the place of a linear PackedLayer that ``TOKENS`` supports.

    A Gaussian grid's values are odd integers times half a step: x = (s / 2) (2 code - levels), s of the token. So

        y = (s / 2) (s_w sum(d c_w) + r_w sum(d)) + bias + L1 L2 x,    d = 2 code - levels.

    Raises QartsrError where a sum may exceed 32 bits.
    """

    codes: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, layer: PackedLayer) -> None:
        super().__init__()
        assert isinstance(layer.weight, PackedTensor) and isinstance(layer.input, TokenGaussian)
        self.op, self.transform, self.skip, self.inputs = layer.op, layer.transform, layer.skip, layer.input
        shape, levels = layer.spec.shape, 2**layer.spec.weight_bits - 1
        weight = code_grid(Grid(layer.weight.grid[0], layer.weight.grid[1], levels))
        codes = layer.weight.integers().double() - weight.zero
        bound = self.inputs.levels * int(codes.abs().sum(1).amax())
        if bound >= _INT32:
            raise QartsrError("sums may exceed 32 bits", f"a layer of shape {shape}", "choose another engine")
        scale, rest = (part.reshape(-1).expand(shape[0]) for part in (weight.scale, weight.rest))
        self.register_buffer("codes", codes.float() if bound < _FP32_EXACT else codes)
        self.register_buffer("scale", scale.float())
        self.register_buffer("bias", layer.bias().float())
        self.window = WindowSum(codes, rest.float()) if bool(rest.any()) else NoWindowSum()

    def forward(self, x: Tensor) -> Tensor:
        """The layer on ``x`` (..., C)."""
        turned = self.transform(x)
        grid = self.inputs.grid(turned)
        odd = 2 * nearest(turned, grid) - self.inputs.levels
        sums = self.op(odd.to(self.codes.dtype), self.codes).to(torch.int32).to(x.dtype)
        y: Tensor = (sums * self.scale + self.window(odd, self.op)) * (grid.scale / 2) + self.bias
        return y + self.skip(x, self.op)


def runs_in_integers(layer: PackedLayer) -> bool:
    """Whether there is a layer that computes the same in integers."""
    if isinstance(layer.input, TokenGaussian):
        return isinstance(layer.op, LinearOp) and unsupported_reason(layer, TOKENS) is None
    return unsupported_reason(layer, INTEGERS) is None


def in_integers(layer: PackedLayer) -> IntegerLayer | TokenLayer:
    """That layer. Raises QartsrError where a sum may exceed 32 bits."""
    return TokenLayer(layer) if isinstance(layer.input, TokenGaussian) else IntegerLayer(layer)


_NONE = "no layer has codes of both weight and input"


@dataclass(frozen=True)
class Integer:
    """Every layer with codes on both sides multiplies integers; layers with a floating-point side stay as they are."""

    name: ClassVar[str] = "integer"

    def refusal(self, model: OneStepSR, device: torch.device) -> str | None:
        """It runs on the CPU, and needs at least one layer with codes."""
        if device.type != "cpu":
            return "it is a reference for the CPU"
        return None if any(runs_in_integers(layer) for _, layer in _layers(model)) else _NONE

    def prepare(self, model: Backbone) -> OneStepSR:
        """The model with its layers exchanged, in place."""
        for name, layer in list(_layers(model)):
            if runs_in_integers(layer):
                model.set_submodule(name, in_integers(layer))
        return model


def _layers(model: nn.Module) -> Iterator[tuple[str, PackedLayer]]:
    for name, module in model.named_modules():
        if isinstance(module, PackedLayer):
            yield name, module
