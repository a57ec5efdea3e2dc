"""The layer as it is stored and run: codes, grids, factors. It knows no method, only uniform grids.

    y = L1 L2 x + op(Q((x - delta) / phi), codes * scale + offset, bias)

The arithmetic is that of the trained layer, operation by operation, so the outputs are equal to the last bit. The
adapter is inside the codes and costs nothing.

Every part is its own small module, and a part that is absent is one that does nothing; so the state dict of a packed
model is exactly the content of a package.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from qartsr.artifact.spec import LayerSpec
from qartsr.branches import hierarchical
from qartsr.layer import LayerOp
from qartsr.packing.bits import packed_size, unpack_bits
from qartsr.quantizers import Grid, OwnRange, SlicedOwn, TokenGaussian, decode, fake_quantize, spread_parts
from qartsr.transforms import rotated


class PackedTensor(nn.Module):
    """Integer codes and their grid. Decoded at the first use and kept decoded, beside the state dict."""

    codes: Tensor
    grid: Tensor
    """(2, ...) scale and offset, broadcastable to the tensor"""

    def __init__(self, shape: tuple[int, ...], bits: int, per_channel: bool, groups: int = 1) -> None:
        super().__init__()
        self._shape, self._bits, self._grouped = shape, bits, groups > 1
        ranges = (shape[0], groups, *(1 for _ in shape[2:]))[: len(shape)] if per_channel else ()
        self.register_buffer("codes", torch.zeros(packed_size(math.prod(shape), bits), dtype=torch.uint8))
        self.register_buffer("grid", torch.ones(2, *ranges))
        self._decoded: dict[torch.device, Tensor] = {}

    def integers(self) -> Tensor:
        """The codes, one uint8 each, in the tensor's shape."""
        codes = unpack_bits(self.codes, self._bits, math.prod(self._shape))
        return codes.reshape(self._shape).to(self.codes.device)

    def forward(self) -> Tensor:
        """``codes * scale + offset``, fp32, shaped as the specification says."""
        device = self.grid.device
        if device not in self._decoded:
            self._decoded = {device: decode(self.integers(), self._spread_grid())}
        return self._decoded[device]

    def _spread_grid(self) -> Grid:
        """The grid, of groups spread over their channels."""
        grid = self.grid
        if self._grouped:
            grid = grid.repeat_interleave(self._shape[1] // grid.shape[2], dim=2)
        return Grid(grid[0], grid[1], 2**self._bits - 1)


class FloatTensor(nn.Module):
    """A tensor that is not quantized."""

    value: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(shape))

    def forward(self) -> Tensor:
        """The tensor, fp32, shaped as the specification says."""
        return self.value


class InputGrid(nn.Module):
    """Quantizes a layer's input, one grid for all of it."""

    grid: Tensor
    """(2,) scale and offset"""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self._levels = 2**bits - 1
        self.register_buffer("grid", torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        """``x``, (B, C, H, W) or (..., C), on the grid."""
        return fake_quantize(x, Grid(self.grid[0], self.grid[1], self._levels))


class SplitInputGrid(nn.Module):
    """Quantizes two parts of an input's channels, one grid for each."""

    grid: Tensor
    """(2, 2): scale and offset, of both parts"""

    def __init__(self, bits: int, boundary: int, channels: int, tail: int) -> None:
        super().__init__()
        self._levels, self._tail = 2**bits - 1, tail
        self._widths = (boundary, channels - boundary)
        self.register_buffer("grid", torch.ones(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        """``x``, (B, C, H, W) or (..., C), on the grids."""
        widths = torch.tensor(self._widths, device=x.device)
        scale, offset = (spread_parts(values, widths, self._tail) for values in self.grid)
        return fake_quantize(x, Grid(scale, offset, self._levels))


class InputScale(nn.Module):
    """x / phi, per input channel."""

    phi: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("phi", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        """``x``, (B, C, H, W) or (..., C), in the basis of the codes."""
        return x / self.phi


class InputAffine(nn.Module):
    """(x - delta) / phi, per input channel."""

    phi: Tensor
    delta: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("phi", torch.ones(shape))
        self.register_buffer("delta", torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """``x``, (B, C, H, W) or (..., C), in the basis of the codes."""
        return (x - self.delta) / self.phi


class InputRotation(nn.Module):
    """``x H`` over the channels, block by block."""

    def __init__(self, order: int, dim: int) -> None:
        super().__init__()
        self.order, self.dim = order, dim

    def forward(self, x: Tensor) -> Tensor:
        """``x``, (B, C, H, W) or (..., C), in the basis of the codes."""
        return rotated(x, self.order, self.dim)


class LowRank(nn.Module):
    """L1 (L2 x) in floating point: L2 as the layer's operation to r channels, L1 pointwise."""

    left: Tensor
    right: Tensor

    def __init__(self, shape: tuple[int, ...], rank: int, reads: nn.Module) -> None:
        super().__init__()
        self.reads = reads
        self.register_buffer("left", torch.zeros(shape[0], rank))
        self.register_buffer("right", torch.zeros(rank, *shape[1:]))

    def forward(self, x: Tensor, op: LayerOp) -> Tensor:
        """The branch on a padded input, (B, C, H, W) or (..., C)."""
        return op.pointwise(op(self.reads(x), self.right), self.left)


class Hierarchical(nn.Module):
    """A low rank and blocks of rank 1, see :class:`qartsr.branches.HSVD`."""

    left: Tensor
    right: Tensor
    block_left: Tensor
    block_right: Tensor

    def __init__(self, shape: tuple[int, ...], rank: int, blocks: tuple[int, int], reads: nn.Module) -> None:
        super().__init__()
        self.reads = reads
        rows, columns = blocks
        self.register_buffer("left", torch.zeros(shape[0], rank))
        self.register_buffer("right", torch.zeros(rank, *shape[1:]))
        self.register_buffer("block_left", torch.zeros(shape[0], columns))
        self.register_buffer("block_right", torch.zeros(columns * rows, shape[1] // columns, *shape[2:]))

    def forward(self, x: Tensor, op: LayerOp) -> Tensor:
        """The branch on a padded input, (B, C, H, W) or (..., C)."""
        return hierarchical(self.reads(x), op, (self.left, self.right, self.block_left, self.block_right))


class NoLowRank(nn.Module):
    """No branch."""

    def forward(self, x: Tensor, op: LayerOp) -> Tensor:
        """A scalar 0."""
        return x.new_zeros(())


class Parts(NamedTuple):
    """The modules of one layer."""

    weight: PackedTensor | FloatTensor
    bias: PackedTensor | FloatTensor
    transform: nn.Module
    input: nn.Module
    skip: LowRank | Hierarchical | NoLowRank


def parts(spec: LayerSpec) -> Parts:
    """Empty modules of the shapes that ``spec`` asks for."""
    outputs, channels = spec.shape[:1], (spec.shape[1], *(1 for _ in spec.shape[2:]))
    transforms: dict[str, Callable[[], nn.Module]] = {
        "none": nn.Identity,
        "scale": lambda: InputScale(channels),
        "affine": lambda: InputAffine(channels),
        "hadamard": lambda: _rotation(spec),
    }
    return Parts(
        PackedTensor(spec.shape, spec.weight_bits, spec.per_channel, spec.weight_groups)
        if spec.weight_bits
        else FloatTensor(spec.shape),
        PackedTensor(outputs, spec.bias_bits, per_channel=False) if spec.bias_bits else FloatTensor(outputs),
        transforms[spec.transform](),
        _input(spec),
        _skip(spec),
    )


def _input(spec: LayerSpec) -> nn.Module:
    if not spec.input_bits:
        return nn.Identity()
    if spec.input_token:
        return TokenGaussian(spec.input_bits, len(spec.shape) - 2)
    if spec.input_split:
        split = SlicedOwn if spec.input_dynamic else SplitInputGrid
        return split(spec.input_bits, spec.input_split, spec.shape[1], len(spec.shape) - 2)
    if spec.input_dynamic:
        return OwnRange(spec.input_bits)
    return InputGrid(spec.input_bits)


def _rotation(spec: LayerSpec) -> InputRotation:
    return InputRotation(spec.rotation, 1 - len(spec.shape))


def _skip(spec: LayerSpec) -> LowRank | Hierarchical | NoLowRank:
    if not (spec.rank or spec.blocks[0]):
        return NoLowRank()
    reads = _rotation(spec) if spec.skip_rotated else nn.Identity()
    if spec.blocks[0]:
        return Hierarchical(spec.shape, spec.rank, spec.blocks, reads)
    return LowRank(spec.shape, spec.rank, reads)


class PackedLayer(nn.Module):
    """Takes the place of an nn.Conv2d or nn.Linear; nothing in it trains."""

    def __init__(self, op: LayerOp, spec: LayerSpec) -> None:
        super().__init__()
        self.op, self.spec = op, spec
        self.weight, self.bias, self.transform, self.input, self.skip = parts(spec)

    def forward(self, x: Tensor) -> Tensor:
        """The layer on ``x``, (B, C, H, W) or (..., C), padded before transform and quantizer: 0 is a value of x."""
        x = self.op.pad(x)
        y: Tensor = self.op(self.input(self.transform(x)), self.weight(), self.bias()) + self.skip(x, self.op)
        return y

    def extra_repr(self) -> str:
        """Shape and bits."""
        return f"weight={self.spec.shape}, bits={self.spec.weight_bits}/{self.spec.input_bits}"
