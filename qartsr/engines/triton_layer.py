"""A packed layer on integer kernels: the same codes, multiplied as int8 and scaled once at the end.

With input values a s_x + r_x and weights w s_w + r_w (:mod:`qartsr.packing.integer_grid`) a window of K values sums to

    s_x s_w sum(a w)  +  s_x r_w sum(a)  +  r_x (s_w sum(w) + K r_w),

the last term a constant per output channel, added to the bias. Grids made of whole steps have r = 0. The result
differs from the packed layer's by the rounding of fp32 sums only, which here are exact.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qartsr.kernels import Epilogue, Geometry, InputCodes, Kernels, PackedWeight
from qartsr.kernels.plain import PlainKernels
from qartsr.layer import Conv2dOp, LayerOp
from qartsr.packing import PackedLayer
from qartsr.packing.integer_grid import int8_grid
from qartsr.packing.packed_layer import InputGrid, LowRank, PackedTensor
from qartsr.packing.supports import Supports, unsupported_reason
from qartsr.quantizers import Grid

_POINTWISE = Geometry()
_KERNELS = Supports()


class StoredWeight(nn.Module):
    """Keeps the bit stream and unpacks it at every use: the least memory."""

    stream: Tensor
    zero: Tensor

    def __init__(self, weight: PackedWeight, kernels: Kernels) -> None:
        super().__init__()
        self._bits, self._shape, self._kernels = weight.bits, weight.shape, kernels
        self.register_buffer("stream", weight.stream)
        self.register_buffer("zero", weight.zero)

    def forward(self) -> Tensor:
        """(O, kh, kw, C) int8."""
        return self._kernels.unpack(PackedWeight(self.stream, self._bits, self._shape, self.zero))


class ResidentWeight(nn.Module):
    """Keeps the codes as int8: the least time."""

    codes: Tensor

    def __init__(self, weight: PackedWeight, kernels: Kernels) -> None:
        super().__init__()
        self.register_buffer("codes", kernels.unpack(weight))

    def forward(self) -> Tensor:
        """(O, kh, kw, C) int8."""
        return self.codes


class ConvShape:
    """(B, C, H, W), channels last in memory, as rows of channels."""

    def rows(self, x: Tensor) -> Tensor:
        """(B, H, W, C), contiguous."""
        return x.permute(0, 2, 3, 1).contiguous()

    def shaped(self, y: Tensor, x: Tensor) -> Tensor:
        """Rows (B, OH, OW, O) as (B, O, OH, OW)."""
        return y.permute(0, 3, 1, 2)


class LinearShape:
    """(..., C) as one image with a row of pixels."""

    def rows(self, x: Tensor) -> Tensor:
        """(1, 1, M, C), contiguous."""
        return x.reshape(1, 1, -1, x.shape[-1]).contiguous()

    def shaped(self, y: Tensor, x: Tensor) -> Tensor:
        """Rows (1, 1, M, O) as (..., O)."""
        return y.reshape(*x.shape[:-1], y.shape[-1])


class KernelLayer(nn.Module):
    """Takes the place of a :class:`PackedLayer`; inputs and outputs of any floating type, codes computed in fp32.

    Parameters
    ----------
    layer: with integer weight and input, see :func:`convertible`; on the device it shall run on.
    dtype: of the low-rank branch.
    resident: keep int8 codes instead of the packed stream.

    Raises ValueError for a layer that is not convertible.
    """

    delta: Tensor
    phi: Tensor
    grid: Tensor
    border: Tensor
    scale: Tensor
    bias: Tensor
    row_factor: Tensor
    left: Tensor
    right: Tensor

    def __init__(self, layer: PackedLayer, kernels: Kernels, dtype: torch.dtype, resident: bool) -> None:
        super().__init__()
        weight, given = layer.weight, layer.input
        if not convertible(layer) or not isinstance(weight, PackedTensor) or not isinstance(given, InputGrid):
            raise ValueError("only layers of integers with plain grids and branches run on integer kernels")
        spec, op = layer.spec, layer.op
        outputs, channels = spec.shape[:2]
        steps, offsets = (part.reshape(-1).expand(outputs) for part in weight.grid)
        weights = int8_grid(Grid(steps, offsets, 2**spec.weight_bits - 1))
        inputs = int8_grid(Grid(given.grid[0], given.grid[1], 2**spec.input_bits - 1))
        self._kernels, self._geometry = kernels, _geometry(op, spec.shape)
        self._shape = ConvShape() if isinstance(op, Conv2dOp) else LinearShape()
        self._levels, self._zero = 2**spec.input_bits - 1, int(inputs.zero)
        packed = PackedWeight(
            weight.codes, spec.weight_bits, (outputs, channels, *self._geometry.kernel), weights.zero.int()
        )
        self.weight = (ResidentWeight if resident else StoredWeight)(packed, kernels)
        sums = self.weight().sum((1, 2, 3), dtype=torch.int64).double()
        window = channels * self._geometry.kernel[0] * self._geometry.kernel[1]
        step = given.grid[0].double()
        for name, value in {
            "grid": given.grid,
            "scale": (step * steps.double()).float(),
            "bias": (layer.bias().double() + inputs.rest * (steps.double() * sums + window * weights.rest)).float(),
            "row_factor": _unless_zero((step * weights.rest).float()),
            **_basis(layer, nothing=steps.new_empty(0)),
            **_low_rank(layer, nothing=steps.new_empty(0, dtype=dtype)),
        }.items():
            self.register_buffer(name, value.contiguous())
        self.register_buffer("border", self._border(channels))

    def forward(self, x: Tensor) -> Tensor:
        """The layer on ``x``: (B, C, H, W) for a convolution, (..., C) for a linear layer."""
        return self.extended(x, self.bias.new_zeros(1, 1), x.new_empty(0))

    def extended(self, x: Tensor, image_bias: Tensor, residual: Tensor) -> Tensor:
        """The layer, plus ``image_bias`` (B or 1, O or 1), plus ``residual`` shaped like the output (or empty)."""
        rows = self._shape.rows(x)
        return self._shape.shaped(
            self._product(self._kernels.quantize(rows, self._codes()), rows, image_bias, residual), x
        )

    def activated(self, x: Tensor, norm: nn.GroupNorm, image_bias: Tensor, residual: Tensor) -> Tensor:
        """:meth:`extended` of SiLU(norm(x)), ``x`` (B, C, H, W), in one pass over x more than the moments need."""
        rows = self._shape.rows(x)
        affine = self._kernels.group_norm(rows, norm.num_groups, norm.weight, norm.bias, norm.eps)
        codes, values = self._kernels.activate(rows, affine, self._codes(), keep=self.left.numel() > 0)
        return self._shape.shaped(self._product(codes, values, image_bias, residual), x)

    def _product(self, codes: Tensor, values: Tensor, image_bias: Tensor, residual: Tensor) -> Tensor:
        epilogue = Epilogue(
            scale=self.scale,
            bias=(self.bias + image_bias.float()).contiguous(),
            rows=self.row_factor,
            left=self.left,
            down=self._down(values),
            residual=self._shape.rows(residual) if residual.numel() else residual,
        )
        return self._kernels.product(codes, self.weight(), self.border, self._geometry, epilogue, values.dtype)

    def _down(self, values: Tensor) -> Tensor:
        """L2 x, (B, OH, OW, r)."""
        if not self.left.numel():
            return self.left
        x = values.to(self.right.dtype)
        if self._geometry == _POINTWISE:
            return x @ self.right.flatten(1).T
        geometry = self._geometry
        down = F.conv2d(
            x.permute(0, 3, 1, 2), self.right, None, geometry.stride, geometry.padding, geometry.dilation
        )  # fmt: skip
        return down.permute(0, 2, 3, 1).contiguous()

    def _codes(self) -> InputCodes:
        return InputCodes(self.delta, self.phi, self.grid, self._levels, self._zero)

    def _border(self, channels: int) -> Tensor:
        """The codes of zeros, which is what padding is."""
        zeros = torch.zeros(1, 1, 1, channels, device=self.grid.device)
        return _unless_zero(PlainKernels().quantize(zeros, self._codes()).flatten())


def convertible(layer: nn.Module) -> bool:
    """Whether ``layer`` is a packed layer of integers: one range of inputs, one per output channel, a plain branch."""
    return isinstance(layer, PackedLayer) and unsupported_reason(layer, _KERNELS) is None


def _geometry(op: LayerOp, shape: tuple[int, ...]) -> Geometry:
    if isinstance(op, Conv2dOp):
        return Geometry((shape[2], shape[3]), op.stride, op.padding, op.dilation)
    return _POINTWISE


def _basis(layer: PackedLayer, nothing: Tensor) -> dict[str, Tensor]:
    """Delta and phi, (C,) each; ``nothing`` where there is no transform."""
    found = dict(layer.transform.named_buffers())
    phi = found.get("phi", nothing).flatten()
    return {"phi": phi, "delta": found.get("delta", torch.zeros_like(phi)).flatten()}


def _low_rank(layer: PackedLayer, nothing: Tensor) -> dict[str, Tensor]:
    """L1 (O, r) and L2, like the weight, in the type of ``nothing``, which stands where there is no branch."""
    if not isinstance(layer.skip, LowRank):
        return {"left": nothing, "right": nothing}
    return {"left": layer.skip.left.to(nothing), "right": layer.skip.right.to(nothing)}


def _unless_zero(value: Tensor) -> Tensor:
    """``value``, or nothing where it is 0 throughout."""
    return value if bool((value != 0).any()) else value.new_empty(0)
