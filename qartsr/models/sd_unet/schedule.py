"""Stable Diffusion's noise schedule, as one table: the cumulative product of 1 - beta.

"scaled_linear" beta from 0.00085 to 0.012 over 1000 steps, in fp32 (equals the published table bit for bit).
"T = 1000" of the papers is scheduler index 999, "T = 500" index 499, "T = 1" index 1 (QArtSR, Fig. 4).
"""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.models.interface import Step

STEPS = 1000
BETAS = (0.00085, 0.012)
"""First and last."""


def alphas_cumprod() -> Tensor:
    """(1000,) fp32, the alpha-bar of every scheduler index."""
    betas = torch.linspace(BETAS[0] ** 0.5, BETAS[1] ** 0.5, STEPS, dtype=torch.float32) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


def eq6(timestep: int) -> Step:
    """Z_H = (Z_L - sqrt(1 - abar) epsilon) / sqrt(abar) at a scheduler index 0..999 (QArtSR, Eq. 6).

    Raises ValueError outside.
    """
    if not 0 <= timestep < STEPS:
        raise ValueError(f"timestep {timestep} is outside 0..{STEPS - 1}")
    alpha = alphas_cumprod()[timestep].double()
    signal, noise = float(alpha.sqrt()), float((1 - alpha).sqrt())
    return Step(timestep, 1 / signal, -noise / signal)
