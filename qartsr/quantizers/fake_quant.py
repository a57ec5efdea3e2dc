"""Affine fake quantization with learnable step and zero point, as one autograd function.

    x_hat = (round(clip(x / s - z, 0, levels)) + z) s

Clip comes before round, so that with the straight-through estimator the gradients are the closed forms of learned
step size quantization (LSQ, Eq. 3) and learned bounds (PassionSR, Eq. 5 to 7):

    d x_hat / d x = 1 inside, 0 outside
    d x_hat / d s = (code + z) - x / s inside, code + z outside
    d x_hat / d z = 0 inside, s outside
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _FakeQuant(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, levels: int) -> Tensor:
        steps = x / scale
        wanted = steps - zero
        clipped = wanted.clamp(0, levels)
        inside = wanted == clipped
        codes = clipped.round_().add_(zero)
        ctx.save_for_backward(inside, torch.where(inside, codes - steps, codes), scale)
        ctx.zero_shape = zero.shape
        return codes * scale

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = outputs
        inside, slope, scale = ctx.saved_tensors
        passed = grad * inside
        to_scale = (grad * slope).sum_to_size(scale.shape) if ctx.needs_input_grad[1] else None
        to_zero = ((grad - passed) * scale).sum_to_size(ctx.zero_shape) if ctx.needs_input_grad[2] else None
        return passed, to_scale, to_zero, None


def fake_quant(x: Tensor, scale: Tensor, zero: Tensor, levels: int) -> Tensor:
    """``x`` on the grid; ``scale`` > 0 and ``zero`` broadcast to ``x`` and receive gradients."""
    out: Tensor = _FakeQuant.apply(x, scale, zero, levels)  # type: ignore[no-untyped-call]
    return out


def round_straight_through(x: Tensor) -> Tensor:
    """round(x) with gradient 1."""
    return x + (x.round() - x).detach()


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """``x`` itself, its gradient times ``factor`` (LSQ, section 2.2)."""
    return x * factor + (x - x * factor).detach()
