"""The kernels in Triton: shapes in, launches out. Runs on CUDA devices, and anywhere under Triton's interpreter."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qartsr.kernels import device
from qartsr.kernels.interface import Activation, Affine, Epilogue, Geometry, InputCodes, PackedWeight, batch_rows
from qartsr.kernels.tiles import Problem, Table, Tiles, rule

_UNPACK_BLOCK = 1024
_CHUNK = 512
"""Pixels per program of the moments."""
_GROUP = 8
_SMALLEST_DOT = 16
_EXACT = {"enable_fp_fusion": False}
"""A product and a sum are rounded separately, as torch does it."""
_LARGEST = 2**31
"""Elements that 32-bit offsets reach."""


@dataclass(frozen=True)
class TritonKernels:
    """:class:`qartsr.kernels.Kernels` by Triton. Shapes alone decide what is launched.

    Raises ValueError for a tensor of 2^31 elements or more.
    """

    table: Table = field(default_factory=dict)
    """tiles measured for some shapes; the others are cut by rule"""

    def unpack(self, weight: PackedWeight) -> Tensor:
        """See :meth:`qartsr.kernels.Kernels.unpack`."""
        outputs, channels, rows, columns = weight.shape
        count = math.prod(weight.shape)
        out = torch.empty(outputs, rows, columns, channels, dtype=torch.int8, device=weight.stream.device)
        device.unpack[(-(-count // _UNPACK_BLOCK),)](
            weight.stream, weight.zero, out, count, weight.stream.numel(),
            C=channels, TAPS=rows * columns, BITS=weight.bits, BLOCK=_UNPACK_BLOCK, **_EXACT,
        )  # fmt: skip
        return out

    def group_norm(self, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Affine:
        """See :meth:`qartsr.kernels.Kernels.group_norm`."""
        batch, height, width, channels = _small(x).shape
        pixels = height * width
        chunks, block = -(-pixels // _CHUNK), _block_channels(channels)
        means, squares = torch.empty(2, batch, chunks, channels, device=x.device)
        affine = Affine(*torch.empty(2, batch, channels, device=x.device))
        device.moments[(chunks, -(-channels // block), batch)](
            x, means, squares, pixels, C=channels, CHUNK=_CHUNK, BLOCK_M=min(_CHUNK, 4096 // block), BLOCK_C=block,
            **_EXACT,
        )  # fmt: skip
        size = channels // groups
        device.normaliser[(groups, batch)](
            means, squares, weight, bias, *affine, pixels, chunks, eps,
            C=channels, GROUPS=groups, CHUNK=_CHUNK, BLOCK_M=64, BLOCK_C=_power(size), **_EXACT,
        )  # fmt: skip
        return affine

    def quantize(self, x: Tensor, codes: InputCodes) -> Tensor:
        """See :meth:`qartsr.kernels.Kernels.quantize`."""
        unused = x.new_empty(0)
        return self._quantize(x, Affine(unused, unused), codes, unused)

    def activate(self, x: Tensor, norm: Affine, codes: InputCodes, keep: bool) -> Activation:
        """See :meth:`qartsr.kernels.Kernels.activate`."""
        values = torch.empty_like(x) if keep else x.new_empty(0)
        return Activation(self._quantize(x, norm, codes, values), values)

    def _quantize(self, x: Tensor, norm: Affine, codes: InputCodes, values: Tensor) -> Tensor:
        batch, height, width, channels = _small(x).shape
        rows, block = batch * height * width, _block_channels(channels)
        block_rows = min(2048 // block, _power(rows))
        out = torch.empty(x.shape, dtype=torch.int8, device=x.device)
        device.quantize[(-(-rows // block_rows), -(-channels // block))](
            x, *norm, codes.delta, codes.phi, codes.grid, out, values,
            rows, height * width, float(codes.levels), codes.zero,
            C=channels, ACTIVATED=norm.gain.numel() > 0, KEEP=values.numel() > 0, BASIS=codes.phi.numel() > 0,
            BLOCK_M=block_rows, BLOCK_C=block, **_EXACT,
        )  # fmt: skip
        return out

    def product(
        self, codes: Tensor, weight: Tensor, border: Tensor, geometry: Geometry, epilogue: Epilogue, dtype: torch.dtype
    ) -> Tensor:
        """See :meth:`qartsr.kernels.Kernels.product`."""
        batch, height, width, channels = _small(codes).shape
        sides = geometry.output(height, width)
        outputs, taps = weight.shape[0], weight.shape[1] * weight.shape[2]
        problem = Problem(batch * math.prod(sides), outputs, channels, taps)
        out = _small(torch.empty(batch, *sides, outputs, dtype=dtype, device=codes.device))
        tiles = self.table.get(problem) or rule(problem, _processors(codes.device))
        _launch(codes, weight, border, out, geometry, epilogue, problem, tiles)
        return out


def _launch(
    codes: Tensor, weight: Tensor, border: Tensor, out: Tensor, geometry: Geometry, epilogue: Epilogue,
    problem: Problem, tiles: Tiles,
) -> None:  # fmt: skip
    batch, height, width, channels = codes.shape
    sides, split = out.shape[1:3], tiles.splits > 1
    batch_rows(epilogue, batch)
    partial = torch.empty(tiles.splits * problem.rows * problem.outputs * split, dtype=torch.int32, device=codes.device)
    partial_rows = torch.empty(tiles.splits * problem.rows * split, dtype=torch.int32, device=codes.device)
    rank = epilogue.left.shape[1] if epilogue.left.numel() else 0
    parts = (epilogue.scale, epilogue.bias, epilogue.rows, epilogue.down, epilogue.left, epilogue.residual)
    flags = {
        "ROWS": epilogue.rows.numel() > 0,
        "PER_IMAGE": epilogue.bias.shape[0] > 1,
        "RANK": rank,
        "RANK_BLOCK": max(_SMALLEST_DOT, _power(rank)),
        "RESIDUAL": epilogue.residual.numel() > 0,
    }
    programs = -(-problem.rows // tiles.rows) * -(-problem.outputs // tiles.outputs)
    device.product[(programs, tiles.splits)](
        codes, weight, border, out, partial, partial_rows, *parts,
        problem.rows, problem.outputs, height, width, *sides,
        channels, *geometry.kernel, *geometry.stride, *geometry.padding, *geometry.dilation,
        POINTWISE=geometry.pointwise, BORDER=border.numel() > 0, **flags,
        BLOCK_M=tiles.rows, BLOCK_N=tiles.outputs, BLOCK_K=tiles.depth, SPLITS=tiles.splits, GROUP=_GROUP,
        num_warps=tiles.warps, num_stages=tiles.stages, **_EXACT,
    )  # fmt: skip
    if split:
        device.gather[(-(-problem.rows // 32), -(-problem.outputs // 64))](
            partial, partial_rows, out, *parts, problem.rows, problem.outputs, math.prod(sides), **flags,
            BLOCK_M=32, BLOCK_N=64, SPLITS=tiles.splits, **_EXACT,
        )  # fmt: skip


def _small(x: Tensor) -> Tensor:
    if x.numel() >= _LARGEST:
        raise ValueError(f"{x.numel()} elements are too many for 32-bit offsets: take a smaller batch or tile")
    return x


def _block_channels(channels: int) -> int:
    return min(128, _power(channels))


def _power(value: int) -> int:
    return 1 << max(0, value - 1).bit_length()


def _processors(device: torch.device) -> int:
    """Multiprocessors; without a GPU (the interpreter) one, so that nothing is split."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
