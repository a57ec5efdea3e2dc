"""Inputs for the kernels, by seed, so that another process can make the same; tiny, because the interpreter is slow."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qartsr.kernels import Affine, Epilogue, Geometry, InputCodes, Kernels, PackedWeight
from qartsr.kernels.tiles import Problem, Tiles

NOTHING = torch.empty(0)


class Product(NamedTuple):
    """A convolution: geometry, sides, channels, outputs, tiles, and which parts of the epilogue there are."""

    geometry: Geometry
    sides: tuple[int, int]
    channels: int
    outputs: int
    tiles: Tiles = Tiles(16, 16, 32)
    border: bool = False
    rows: bool = False
    per_image: bool = False
    rank: int = 0
    residual: bool = False
    dtype: torch.dtype = torch.float32


SAME = Geometry((3, 3), (1, 1), (1, 1))
SPLIT = Tiles(16, 16, 32, splits=3)
PRODUCTS = {
    "3x3": Product(SAME, (5, 4), 8, 6),
    "3x3, channels and outputs beyond a block": Product(SAME, (3, 5), 35, 18),
    "3x3, border": Product(SAME, (4, 3), 8, 6, border=True),
    "stride 2": Product(Geometry((3, 3), (2, 2), (1, 1)), (7, 6), 8, 6, border=True),
    "stride 2, padded by hand": Product(Geometry((3, 3), (2, 2)), (7, 5), 8, 6),
    "uneven": Product(Geometry((3, 1), (2, 1), (1, 0), (1, 2)), (6, 5), 4, 5),
    "dilation": Product(Geometry((3, 3), (1, 1), (2, 2), (2, 2)), (5, 5), 4, 5, border=True),
    "1x1": Product(Geometry(), (3, 7), 40, 20),
    "1x1, stride 2": Product(Geometry((1, 1), (2, 2)), (4, 7), 20, 6),
    "one pixel": Product(Geometry(), (1, 1), 70, 3),
    "split": Product(SAME, (3, 3), 40, 20, SPLIT, border=True),
    "more parts than work": Product(Geometry(), (2, 3), 40, 20, Tiles(16, 32, 32, splits=8), rows=True),
    "whole epilogue": Product(SAME, (4, 3), 8, 18, border=True, rows=True, per_image=True, rank=3, residual=True),
    "whole epilogue, split": Product(SAME, (4, 3), 8, 18, SPLIT, True, True, True, 3, True),
    "half precision": Product(SAME, (4, 3), 8, 18, rank=3, residual=True, dtype=torch.float16),
}
BATCH = 2


def problem(case: Product) -> Problem:
    rows, columns = case.geometry.output(*case.sides)
    return Problem(
        BATCH * rows * columns, case.outputs, case.channels, case.geometry.kernel[0] * case.geometry.kernel[1]
    )


def multiply(kernels: Kernels, case: Product) -> Tensor:
    """The case's output."""
    draw = torch.Generator().manual_seed(0)

    def integers(*shape: int) -> Tensor:
        return torch.randint(-128, 128, shape, generator=draw).to(torch.int8)

    def floats(*shape: int, there: bool = True, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=draw).to(dtype) if there else NOTHING

    outputs, sides = case.outputs, case.geometry.output(*case.sides)
    epilogue = Epilogue(
        scale=floats(outputs) / 1000,
        bias=floats(BATCH if case.per_image else 1, outputs),
        rows=floats(outputs, there=case.rows) / 100,
        left=floats(outputs, case.rank, there=case.rank > 0, dtype=case.dtype),
        down=floats(BATCH, *sides, case.rank, there=case.rank > 0, dtype=case.dtype),
        residual=floats(BATCH, *sides, outputs, there=case.residual, dtype=case.dtype),
    )
    codes, weight = integers(BATCH, *case.sides, case.channels), integers(outputs, *case.geometry.kernel, case.channels)
    border = integers(case.channels) if case.border else NOTHING.to(torch.int8)
    return kernels.product(codes, weight, border, case.geometry, epilogue, case.dtype)


def packed(bits: int) -> tuple[PackedWeight, Tensor]:
    """A weight of 105 codes, so that the stream ends within a byte, and its codes; packed as docs/artifact.md says."""
    draw, shape = torch.Generator().manual_seed(bits), (5, 7, 3, 1)
    codes = torch.randint(0, 2**bits, shape, generator=draw)
    zero = torch.randint(max(0, 2**bits - 128), min(2**bits - 1, 128) + 1, (5,), generator=draw).int()
    number = sum(code << bits * index for index, code in enumerate(codes.flatten().tolist()))
    stream = torch.tensor(list(number.to_bytes(-(-105 * bits // 8), "little")), dtype=torch.uint8)
    return PackedWeight(stream, bits, shape, zero), codes


class Inputs(NamedTuple):
    """What the quantizing kernels are given."""

    x: Tensor
    """(2, 5, 3, C)"""
    codes: InputCodes
    weight: Tensor
    bias: Tensor

    @property
    def norm(self) -> Affine:
        return Affine(self.weight.repeat(BATCH, 1), torch.stack([self.bias, -self.bias]))


def inputs(channels: int, transform: bool, levels: int, dtype: torch.dtype = torch.float32) -> Inputs:
    draw = torch.Generator().manual_seed(channels)
    x = (torch.randn(BATCH, 5, 3, channels, generator=draw) * 3 + 1).to(dtype)
    delta, phi = torch.randn(channels, generator=draw), torch.rand(channels, generator=draw) + 0.3
    weight, bias = torch.rand(channels, generator=draw), torch.randn(channels, generator=draw)
    basis = (delta, phi) if transform else (NOTHING, NOTHING)
    return Inputs(x, InputCodes(*basis, torch.tensor([8.0 / levels, -3.1]), levels, max(3, levels - 127)), weight, bias)
