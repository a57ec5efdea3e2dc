"""The kernels in plain torch, on any device: what the compiled ones are compared with, and what runs where they cannot.

Integer sums are taken in float64, which holds them exactly (|S| <= 2^14 C kh kw < 2^53).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from qartsr.kernels.interface import Activation, Affine, Epilogue, Geometry, InputCodes, PackedWeight, batch_rows


class PlainKernels:
    """:class:`qartsr.kernels.Kernels` without Triton."""

    def unpack(self, weight: PackedWeight) -> Tensor:
        """See :meth:`qartsr.kernels.Kernels.unpack`."""
        count = math.prod(weight.shape)
        first = torch.arange(count, device=weight.stream.device) * weight.bits
        stream = F.pad(weight.stream, (0, 1)).to(torch.int32)
        pair = stream[first >> 3] | stream[(first >> 3) + 1] << 8
        codes = (pair >> (first & 7)) & (2**weight.bits - 1)
        shifted = codes.view(weight.shape) - weight.zero[:, None, None, None]
        return shifted.to(torch.int8).permute(0, 2, 3, 1).contiguous()

    def group_norm(self, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Affine:
        """See :meth:`qartsr.kernels.Kernels.group_norm`."""
        batch, channels = x.shape[0], x.shape[3]
        grouped = x.float().reshape(batch, -1, groups, channels // groups)
        variance, mean = torch.var_mean(grouped, dim=(1, 3), correction=0)
        gain = torch.rsqrt(variance + eps).repeat_interleave(channels // groups, 1) * weight.float()
        return Affine(gain, bias.float() - mean.repeat_interleave(channels // groups, 1) * gain)

    def quantize(self, x: Tensor, codes: InputCodes) -> Tensor:
        """See :meth:`qartsr.kernels.Kernels.quantize`."""
        x = (x.float() - codes.delta) / codes.phi if codes.phi.numel() else x.float()
        steps = torch.sub(x, codes.grid[1]).div_(codes.grid[0])
        return steps.clamp_(0, codes.levels).round_().sub_(codes.zero).to(torch.int8)

    def activate(self, x: Tensor, norm: Affine, codes: InputCodes, keep: bool) -> Activation:
        """See :meth:`qartsr.kernels.Kernels.activate`."""
        values = F.silu(x.float() * norm.gain[:, None, None] + norm.shift[:, None, None])
        return Activation(self.quantize(values, codes), values.to(x.dtype) if keep else x.new_empty(0))

    def product(
        self, codes: Tensor, weight: Tensor, border: Tensor, geometry: Geometry, epilogue: Epilogue, dtype: torch.dtype
    ) -> Tensor:
        """See :meth:`qartsr.kernels.Kernels.product`."""
        padded = _bordered(codes.permute(0, 3, 1, 2).double(), border, geometry.padding)
        sums = _convolved(padded, weight.permute(0, 3, 1, 2).double(), geometry)
        y = sums.float() * epilogue.scale + batch_rows(epilogue, codes.shape[0])
        if epilogue.rows.numel():
            ones = torch.ones(1, *weight.shape[1:], device=codes.device).permute(0, 3, 1, 2).double()
            y += _convolved(padded, ones, geometry).float() * epilogue.rows
        if epilogue.left.numel():
            y += epilogue.down.float() @ epilogue.left.float().T
        if epilogue.residual.numel():
            y += epilogue.residual.float()
        return y.to(dtype)


def _bordered(codes: Tensor, border: Tensor, padding: tuple[int, int]) -> Tensor:
    """(B, C, H, W) with a frame of the channel's code."""
    rows, columns = padding
    beyond = border.double()[:, None, None] if border.numel() else codes.new_zeros(())
    return F.pad(codes - beyond, (columns, columns, rows, rows)) + beyond


def _convolved(padded: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """(B, OH, OW, O) float64."""
    return F.conv2d(padded, weight, None, geometry.stride, 0, geometry.dilation).permute(0, 2, 3, 1)
