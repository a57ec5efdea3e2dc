"""Fake quantization with learned grids: two autograd functions with closed-form gradients and few passes over x.

Straight-through gradients (QArtSR, Eq. 4; LSQ, 1902.08153). The value is clipped before it is rounded: the other order
gives the same values, but the wrong gradient in the half step beyond each end.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from qartsr.quantizers.grid import Grid, nearest

SMALLEST_SCALE = 1e-8
"""Floor of the step: a range that training has turned inside out still gives a finite grid."""


class _FakeQuantize(Function):
    """x, scale s, offset o -> s * round(clip((x - o) / s, 0, levels)) + o.

    d/dx = 1 inside, 0 outside;  d/ds = (x_hat - x) / s inside, 0 below, levels above;  d/do = 0 inside, 1 outside.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor, levels: int) -> Tensor:
        rounded = nearest(x, Grid(scale, offset, levels)).mul_(scale).add_(offset)
        ctx.save_for_backward(x, rounded, scale, offset)
        ctx.levels = levels
        return rounded

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, rounded, scale, offset = ctx.saved_tensors
        clipped = _clip(x, offset, offset + ctx.levels * scale)
        inner = torch.where(clipped == x, grad, 0.0)
        if not (ctx.needs_input_grad[1] or ctx.needs_input_grad[2]):
            return inner, None, None, None
        outer = grad - inner
        outside = outer.sum_to_size(scale.shape)
        # outside the range x_hat is offset (below) or offset + levels * scale (above), so this picks levels * scale
        above = _dot(outer, rounded, scale) - offset * outside
        inside = _dot(inner, torch.sub(rounded, clipped, out=clipped), scale)
        return inner, (inside + above) / scale, outside, None


def _clip(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Clamp to tensor bounds; numbers are several times faster where reading them costs nothing."""
    if x.device.type == "cpu" and low.numel() == 1:
        return x.clamp(low.item(), high.item())
    return x.clamp(low, high)


def _dot(a: Tensor, b: Tensor, like: Tensor) -> Tensor:
    """Sum of a * b over all dimensions along which ``like`` is constant."""
    if like.numel() == 1 and a.is_contiguous() and b.is_contiguous():
        return torch.dot(a.view(-1), b.view(-1)).reshape(like.shape)
    return (a * b).sum_to_size(like.shape)


class _RangeGrid(Function):
    """lower, upper -> scale = (upper - lower) / levels, offset = scale * round(lower / scale) (PassionSR).

    Straight through the rounding of the zero point and through the floor of the scale. With
    r = round(lower / scale) - lower / scale the offset is lower + r * scale, r constant.
    """

    @staticmethod
    def forward(ctx: Any, lower: Tensor, upper: Tensor, levels: int) -> tuple[Tensor, Tensor]:
        scale = ((upper - lower) / levels).clamp_min(SMALLEST_SCALE)
        exact = lower / scale
        zero = exact.round()
        ctx.save_for_backward(zero - exact)
        ctx.levels = levels
        return scale, zero * scale

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, None]:
        (residue,) = ctx.saved_tensors
        upper = (scale + residue * offset) / ctx.levels
        return offset - upper, upper, None


class _ScaleGradient(Function):
    """The identity, with the gradient multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


def fake_quantize(x: Tensor, grid: Grid) -> Tensor:
    """The nearest grid value of every element of ``x``; differentiable in x, scale and offset."""
    return _typed(_FakeQuantize.apply(x, grid.scale, grid.offset, grid.levels))


def range_grid(lower: Tensor, upper: Tensor, levels: int) -> Grid:
    """The affine grid from ``lower`` to ``upper``, shifted by less than half a step so that 0 is a multiple of the step.

    Contains exactly 0 whenever lower <= 0 <= upper. Differentiable in both bounds.
    """
    scale, offset = _RangeGrid.apply(lower, upper, levels)
    return Grid(scale, offset, levels)


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """``x`` itself; its gradient is multiplied by ``factor``."""
    return _typed(_ScaleGradient.apply(x, factor))


def _typed(value: Any) -> Tensor:
    tensor: Tensor = value
    return tensor
