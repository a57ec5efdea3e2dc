"""Fake quantization with learned grids: two autograd functions with closed-form gradients and few passes over x.

Straight-through gradients (QArtSR, Eq. 4; LSQ, 1902.08153). The value is clipped before it is rounded. The public codes
of PassionSR, EfficientDM and QuantVSR round first: the same values, but what lies up to half a step beyond an end
counts as inside. ``beyond=HALF_STEP`` gives their gradients.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from qartsr.quantizers.grid import Grid, positions

SMALLEST_SCALE = 1e-8
"""Floor of the step: a range that training has turned inside out still gives a finite grid."""
HALF_STEP = 0.5
"""How far beyond an end gradients pass where rounding comes before clipping, in steps."""


class _FakeQuantize(Function):
    """x, scale s, offset o -> s * round(clip((x - o) / s, 0, levels)) + o.

    d/dx = 1 inside, 0 outside;  d/ds = (x_hat - x) / s inside, 0 below, levels above;  d/do = 0 inside, 1 outside.
    Inside reaches ``beyond`` steps beyond the ends.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor, levels: int, beyond: float) -> Tensor:
        steps = positions(x, scale, offset)
        ctx.save_for_backward(steps, scale)
        ctx.levels, ctx.beyond = levels, beyond
        return steps.clamp(0, levels).round_().mul_(scale).add_(offset)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        steps, scale = ctx.saved_tensors
        inner = _inside(grad, steps, ctx.levels, ctx.beyond)
        if not (ctx.needs_input_grad[1] or ctx.needs_input_grad[2]):
            return inner, None, None, None, None
        outer = grad - inner
        clipped = steps.clamp(0, ctx.levels)  # outside: 0 or levels, so the dot product picks levels above
        slope = _dot(outer, clipped, scale) + _dot(grad, clipped.round() - clipped, scale)
        if ctx.beyond:
            slope = slope + _dot(inner, clipped.sub_(steps), scale)
        return inner, slope, outer.sum_to_size(scale.shape), None, None


def _inside(grad: Tensor, steps: Tensor, levels: int, beyond: float) -> Tensor:
    """``grad`` where 0 <= steps <= levels, else 0; one pass, where comparisons and selections are slow on CPUs."""
    limits = torch.finfo(steps.dtype)
    low, high = -beyond - limits.tiny, (levels + beyond) * (1 + limits.eps)
    passed: Tensor = torch.ops.aten.hardtanh_backward(grad, steps, low, high)
    return passed


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
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, None]:
        (residue,) = ctx.saved_tensors
        upper = (scale + residue * offset) / ctx.levels
        return offset - upper, upper, None


class _ScaleGradient(Function):
    """max(x, floor), with the gradient of x times a number, also at the floor: a step below it can come back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float, floor: float) -> Tensor:
        ctx.factor = factor
        return x.clamp_min(floor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad * ctx.factor, None, None


def fake_quantize(x: Tensor, grid: Grid, beyond: float = 0.0) -> Tensor:
    """The nearest grid value of every element of ``x``, same shape; differentiable in x, scale and offset.

    ``beyond``: how many steps beyond the ends gradients take x for inside, 0 or :data:`HALF_STEP`.
    """
    return _typed(_FakeQuantize.apply(x, grid.scale, grid.offset, grid.levels, beyond))


def range_grid(lower: Tensor, upper: Tensor, levels: int) -> Grid:
    """The affine grid from ``lower`` to ``upper``, shifted by at most half a step so that 0 is a whole number of steps.

    Bounds of one shape, that of scale and offset. Contains exactly 0 whenever lower <= 0 <= upper. Differentiable in
    both bounds.
    """
    scale, offset = _RangeGrid.apply(lower, upper, levels)
    return Grid(scale, offset, levels)


def scale_gradient(x: Tensor, factor: float, floor: float = -math.inf) -> Tensor:
    """``x`` of any shape, at least ``floor``; its gradient is multiplied by ``factor`` (LSQ, section 2.2)."""
    return _typed(_ScaleGradient.apply(x, factor, floor))


def _typed(value: Any) -> Tensor:
    tensor: Tensor = value
    return tensor
