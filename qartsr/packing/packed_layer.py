"""The layer as it is stored and run: codes, grids, factors. It knows no method, only uniform grids.

    y = L1 L2 x + op(Q(gain (x - shift)), (codes + zero) scale, bias),     Q(v) = (round(clip(v / s - z, 0, l)) + z) s

A grid is stored as scale and zero point, value = (code + zero) scale, because that is the arithmetic of the quantizers:
outputs equal those of the trained layer to the last bit. The adapter is inside the codes and costs nothing.

Every part is its own small module, and a part that is absent is one that does nothing; so the state dict of a packed
model is exactly the content of a package.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from qartsr.layer import Op
from qartsr.packing.bits import packed_size, unpack_bits
from qartsr.packing.spec import LayerSpec, TensorSpec
from qartsr.quantizers.fake_quant import fake_quant


class PackedTensor(nn.Module):
    """Integer codes and their grid. Decoded at the first use and kept decoded, beside the state dict."""

    codes: Tensor
    scale: Tensor
    zero: Tensor

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__()
        self._spec = spec
        count = math.prod(spec.shape)
        grid = (spec.shape[0] if spec.per_channel else 1, *(1 for _ in spec.shape[1:]))
        self.register_buffer("codes", torch.zeros(packed_size(count, spec.bits), dtype=torch.uint8))
        self.register_buffer("scale", torch.ones(grid))
        self.register_buffer("zero", torch.zeros(grid))
        self._decoded: dict[torch.device, Tensor] = {}

    def integers(self) -> Tensor:
        """The codes, one uint8 each, in the tensor's shape."""
        spec = self._spec
        return unpack_bits(self.codes, spec.bits, math.prod(spec.shape)).reshape(spec.shape).to(self.codes.device)

    def forward(self) -> Tensor:
        """(codes + zero) scale, fp32."""
        if self.scale.device not in self._decoded:
            self._decoded = {self.scale.device: (self.integers().to(self.scale.dtype) + self.zero) * self.scale}
        return self._decoded[self.scale.device]


class FloatTensor(nn.Module):
    """A tensor that is not quantized."""

    value: Tensor

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(spec.shape))

    def forward(self) -> Tensor:
        """The tensor."""
        return self.value


class InputGrid(nn.Module):
    """Quantizes a layer's input, one grid for all of it."""

    scale: Tensor
    zero: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self._levels = 2**bits - 1
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("zero", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` on the grid."""
        return fake_quant(x, self.scale, self.zero, self._levels)


class InputScale(nn.Module):
    """gain x, per input channel."""

    gain: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("gain", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` in the basis of the codes."""
        return x * self.gain


class InputAffine(nn.Module):
    """gain (x - shift), per input channel."""

    gain: Tensor
    shift: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("gain", torch.ones(shape))
        self.register_buffer("shift", torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` in the basis of the codes."""
        return (x - self.shift) * self.gain


class LowRank(nn.Module):
    """L1 (L2 x) in floating point: L2 as the layer's operation to r channels, L1 pointwise."""

    left: Tensor
    right: Tensor

    def __init__(self, shape: tuple[int, ...], rank: int) -> None:
        super().__init__()
        self.register_buffer("left", torch.zeros(shape[0], rank))
        self.register_buffer("right", torch.zeros(rank, *shape[1:]))

    def forward(self, x: Tensor, op: Op) -> Tensor:
        """The branch on a padded input."""
        return op.pointwise(op(x, self.right, None), self.left)


class NoLowRank(nn.Module):
    """No branch."""

    def forward(self, x: Tensor, op: Op) -> Tensor:
        """A scalar 0."""
        return x.new_zeros(())


class Parts(NamedTuple):
    """The modules of one layer."""

    weight: PackedTensor | FloatTensor
    bias: PackedTensor | FloatTensor
    transform: nn.Module
    input: nn.Module
    skip: LowRank | NoLowRank


def parts(spec: LayerSpec, op: Op) -> Parts:
    """Empty modules of the shapes that ``spec`` asks for."""
    channels = op.channels(spec.weight.shape[1])
    transforms = {"none": nn.Identity, "scale": lambda: InputScale(channels), "affine": lambda: InputAffine(channels)}
    return Parts(
        (PackedTensor if spec.weight.bits else FloatTensor)(spec.weight),
        (PackedTensor if spec.bias.bits else FloatTensor)(spec.bias),
        transforms[spec.transform](),
        InputGrid(spec.input_bits) if spec.input_bits else nn.Identity(),
        LowRank(spec.weight.shape, spec.rank) if spec.rank else NoLowRank(),
    )


class PackedLayer(nn.Module):
    """Takes the place of an nn.Conv2d or nn.Linear; nothing in it trains."""

    def __init__(self, op: Op, spec: LayerSpec) -> None:
        super().__init__()
        self.op, self.spec = op, spec
        self.weight, self.bias, self.transform, self.input, self.skip = parts(spec, op)

    def forward(self, x: Tensor) -> Tensor:
        """The layer on ``x``, which is padded before transform and quantizer: 0 is a value of x."""
        x = self.op.pad(x)
        y = self.op(self.input(self.transform(x)), self.weight(), self.bias())
        return y + self.skip(x, self.op)

    def extra_repr(self) -> str:
        """Shape and bits."""
        return f"weight={self.spec.weight.shape}, bits={self.spec.weight.bits}/{self.spec.input_bits}"
