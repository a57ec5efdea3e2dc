"""Stable Diffusion's noise schedule, as one table: the cumulative product of 1 - beta.

"scaled_linear" beta from 0.00085 to 0.012 over 1000 steps, in fp32 (equals the published table bit for bit).
"T = 1000" of the papers is scheduler index 999, "T = 500" index 499, "T = 1" index 1 (QArtSR, Fig. 4).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

STEPS = 1000


def alphas_cumprod() -> Tensor:
    """(1000,) fp32, the alpha-bar of every scheduler index."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float32) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


class NoiseLevel(NamedTuple):
    """The three numbers Eq. 6 needs at one timestep."""

    signal: float
    """sqrt(alpha-bar)"""
    noise: float
    """sqrt(1 - alpha-bar), the paper's lambda (QArtSR, theorem of section 3.2)"""
    amplification: float
    """noise / signal: how an error of the predicted noise reaches Z_H"""


def noise_level(timestep: int) -> NoiseLevel:
    """Noise level of a scheduler index 0..999. Raises ValueError outside."""
    if not 0 <= timestep < STEPS:
        raise ValueError(f"timestep {timestep} is outside 0..{STEPS - 1}")
    alpha = alphas_cumprod()[timestep].double()
    signal, noise = float(alpha.sqrt()), float((1 - alpha).sqrt())
    return NoiseLevel(signal, noise, noise / signal)
