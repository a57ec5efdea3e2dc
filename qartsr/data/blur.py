"""Blur kernels of Real-ESRGAN (2107.10833, section 3.1 and appendix): six bell shapes and the sinc filter."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from qartsr.data.dice import Dice

KERNEL = 21
"""taps of a side; smaller kernels are padded with zeros"""

_SINC = 0.1
_KINDS = ("gauss", "gauss", "general", "general", "plateau", "plateau")  # each isotropic, then anisotropic
_SHARES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
_POWERS = {"gauss": (1.0, 1.0), "general": (0.5, 4.0), "plateau": (1.0, 2.0)}


def random_kernel(sigma: tuple[float, float], dice: Dice) -> Tensor:
    """A (21, 21) kernel that sums to 1: sinc in 10 % of the cases, else one of the six bells of random width."""
    size = _size(dice)
    if dice.chance(_SINC):
        return sinc_kernel(dice.uniform(math.pi / (3 if size < 13 else 5), math.pi), size)
    which = dice.pick(_SHARES)
    kind, width = _KINDS[which], dice.uniform(*sigma)
    height, angle = (dice.uniform(*sigma), dice.uniform(-math.pi, math.pi)) if which % 2 else (width, 0.0)
    return bell_kernel(kind, size, (width, height), angle, _power(_POWERS[kind], dice))


def final_sinc_kernel(dice: Dice) -> Tensor:
    """The (21, 21) sinc filter of the last step: its ringing imitates sharpening and over-compression."""
    return sinc_kernel(dice.uniform(math.pi / 3, math.pi), _size(dice))


def _size(dice: Dice) -> int:
    """An odd size from 7 to 21."""
    return 7 + 2 * dice.pick((1.0,) * 8)


def _power(span: tuple[float, float], dice: Dice) -> float:
    """Below or above 1 equally often, though the span above 1 is the wider."""
    return dice.uniform(span[0], 1.0) if dice.chance(0.5) else dice.uniform(1.0, span[1])


def bell_kernel(kind: str, size: int, sigma: tuple[float, float], angle: float, power: float) -> Tensor:
    """exp(-q^power / 2) (gauss, general) or 1 / (1 + q^power) (plateau), padded to 21.

    ``q`` is x' S^-1 x for a covariance S with standard deviations ``sigma`` along axes turned by ``angle`` (radians).
    """
    axis = torch.arange(size, dtype=torch.float32) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    along, across = x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)
    form = (along / sigma[0]).square() + (across / sigma[1]).square()
    return _padded(1 / (1 + form**power) if kind == "plateau" else torch.exp(-0.5 * form**power))


def sinc_kernel(cutoff: float, size: int) -> Tensor:
    """The circular low-pass filter w J1(w r) / (2 pi r), padded to 21; ``cutoff`` w in radians per pixel."""
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    radius = (x.square() + y.square()).sqrt()
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)  # the limit at r = 0
    return _padded(kernel.float())


def _padded(kernel: Tensor) -> Tensor:
    return F.pad(kernel / kernel.sum(), ((KERNEL - kernel.shape[0]) // 2,) * 4)
