"""Plain-autograd and closed-form fake quantization, written without looking at the fast one."""

from __future__ import annotations

import torch
from torch import Tensor


def through(x: Tensor) -> Tensor:
    """round(x) with gradient 1."""
    return x + (x.round() - x).detach()


def composed(x: Tensor, scale: Tensor, offset: Tensor, levels: int) -> Tensor:
    """Eq. 3 and 4 step by step."""
    return through(((x - offset) / scale).clamp(0, levels)) * scale + offset


def composed_bounds(x: Tensor, lower: Tensor, upper: Tensor, levels: int) -> Tensor:
    """PassionSR's LBQ step by step: scale and rounded zero point from the bounds."""
    scale = (upper - lower) / levels
    return composed(x, scale, through(lower / scale) * scale, levels)


def closed_form_bounds(x: Tensor, grad: Tensor, lower: float, upper: float, levels: int) -> tuple[Tensor, float, float]:
    """d/dx, d/dlower and d/dupper of sum(grad * x_hat), element by element by hand."""
    scale = (upper - lower) / levels
    zero = round(lower / scale)
    rest = zero - lower / scale
    to_x, to_lower, to_upper = torch.zeros_like(x), 0.0, 0.0
    for i, (value, g) in enumerate(zip(x.flatten().tolist(), grad.flatten().tolist(), strict=True)):
        code = value / scale - zero
        if code < 0:
            slope_lower, slope_upper = 1 - rest / levels, rest / levels
        elif code > levels:
            slope_lower, slope_upper = -rest / levels, 1 + rest / levels
        else:
            to_x.view(-1)[i] = g
            error = round(code) - code
            slope_lower, slope_upper = -error / levels, error / levels
        to_lower += g * slope_lower
        to_upper += g * slope_upper
    return to_x, to_lower, to_upper
