"""Real-ESRGAN's two-order degradation (2107.10833) with OSEDiff's settings: blur, resize, noise, JPEG, twice.

Operators: kornia for filtering, torch for resizing, Pillow for JPEG. Kernel formulas as in Real-ESRGAN: isotropic and
anisotropic Gaussian, generalised Gaussian, plateau, and the sinc filter. Left out: nothing of OSEDiff's list.
"""

from __future__ import annotations

import io
import math
from typing import NamedTuple

import kornia.filters
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from qartsr.data.pairs import SCALE, image_tensor

KERNEL = 21
_KINDS = ("gauss", "gauss", "general", "general", "plateau", "plateau")
_SHARES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
_RESIZE_MODES = ("area", "bilinear", "bicubic")


class Order(NamedTuple):
    """Settings of one order of the pipeline."""

    blur: float
    """probability that it blurs at all"""
    sigma: tuple[float, float]
    resize: tuple[float, float, float]
    """probabilities of up, down and keep"""
    scale: tuple[float, float]
    noise: tuple[float, float]
    """standard deviation of Gaussian noise, on 0..255"""
    poisson: tuple[float, float]


FIRST = Order(1.0, (0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), (1.0, 30.0), (0.05, 3.0))
SECOND = Order(0.8, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1.0, 25.0), (0.05, 2.5))
_JPEG = (30, 95)


class Dice:
    """Random choices from one torch generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high``."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def chance(self, probability: float) -> bool:
        """True with ``probability``."""
        return self.uniform(0, 1) < probability

    def pick(self, shares: tuple[float, ...]) -> int:
        """An index with probability proportional to its share."""
        return int(torch.multinomial(torch.tensor(shares), 1, generator=self.generator))

    def normal(self, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator)


def realesrgan(hr: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 (3, H, W) -> uint8 (3, H / 4, W / 4). Deterministic in ``generator``."""
    dice = Dice(generator)
    height, width = hr.shape[1:]
    low = (height // SCALE, width // SCALE)
    x = _order(hr[None].float() / 255, FIRST, (height, width), dice)
    x = _jpeg(x, dice)
    x = _order(x, SECOND, low, dice)
    final = sinc_kernel(_cutoff(dice), _size(dice)) if dice.chance(0.8) else None
    if dice.chance(0.5):  # resize and sinc before or after JPEG, as Real-ESRGAN does
        x = _jpeg(_filtered(_resized(x, low, dice), final), dice)
    else:
        x = _filtered(_resized(_jpeg(x, dice), low, dice), final)
    return (x[0] * 255).round().clamp(0, 255).to(torch.uint8)


def _order(x: Tensor, order: Order, base: tuple[int, int], dice: Dice) -> Tensor:
    if dice.chance(order.blur):
        x = _filtered(x, random_kernel(order.sigma, dice))
    up, down, _ = order.resize
    move = dice.pick(order.resize)
    factor = (dice.uniform(1.0, order.scale[1]), dice.uniform(order.scale[0], 1.0), 1.0)[move]
    x = _resized(x, (max(1, int(base[0] * factor)), max(1, int(base[1] * factor))), dice)
    return _noisy(x, order, dice)


def _filtered(x: Tensor, kernel: Tensor | None) -> Tensor:
    return x if kernel is None else kornia.filters.filter2d(x, kernel[None], border_type="replicate").clamp(0, 1)


def _resized(x: Tensor, size: tuple[int, int], dice: Dice) -> Tensor:
    mode = _RESIZE_MODES[dice.pick((1.0, 1.0, 1.0))]
    corners = None if mode == "area" else False
    return F.interpolate(x, size, mode=mode, align_corners=corners).clamp(0, 1)


def _noisy(x: Tensor, order: Order, dice: Dice) -> Tensor:
    """Gaussian noise (half of the time) or Poisson noise; grey in 40 % of the cases."""
    gaussian, grey = dice.chance(0.5), dice.chance(0.4)
    shape = (1, 1, *x.shape[2:]) if grey else x.shape
    if gaussian:
        return (x + dice.normal(shape) * dice.uniform(*order.noise) / 255).clamp(0, 1)
    source = x.mean(1, keepdim=True) if grey else x
    source = (source * 255).round() / 255
    values = 2.0 ** math.ceil(math.log2(max(len(source.unique()), 2)))
    noise = torch.poisson(source * values, generator=dice.generator) / values - source
    return (x + noise * dice.uniform(*order.poisson)).clamp(0, 1)


def _jpeg(x: Tensor, dice: Dice) -> Tensor:
    """A real JPEG round trip at a quality of 30 to 95."""
    pixels = (x[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=round(dice.uniform(*_JPEG)))
    return image_tensor(Image.open(buffer))[None].float() / 255


def _size(dice: Dice) -> int:
    """An odd kernel size from 7 to 21."""
    return 7 + 2 * dice.pick((1.0,) * 8)


def _cutoff(dice: Dice) -> float:
    return dice.uniform(math.pi / 3, math.pi)


def random_kernel(sigma: tuple[float, float], dice: Dice) -> Tensor:
    """A (21, 21) blur kernel that sums to 1: sinc in 10 % of the cases, else one of the six kinds."""
    size = _size(dice)
    if dice.chance(0.1):
        return sinc_kernel(_cutoff(dice), size)
    kind = dice.pick(_SHARES)
    width = dice.uniform(*sigma)
    height, angle = (dice.uniform(*sigma), dice.uniform(-math.pi, math.pi)) if kind % 2 else (width, 0.0)
    power = {"gauss": 1.0, "general": dice.uniform(0.5, 4.0), "plateau": dice.uniform(1.0, 2.0)}[_KINDS[kind]]
    return bell_kernel(_KINDS[kind], size, (width, height), angle, power)


def bell_kernel(kind: str, size: int, sigma: tuple[float, float], angle: float, power: float) -> Tensor:
    """exp(-q^power / 2) (gauss, general) or 1 / (1 + q^power) (plateau), q the Mahalanobis form; padded to 21."""
    axis = torch.arange(size, dtype=torch.float32) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    along, across = x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)
    form = (along / sigma[0]).square() + (across / sigma[1]).square()
    kernel = 1 / (1 + form**power) if kind == "plateau" else torch.exp(-0.5 * form**power)
    return _centred(kernel)


def sinc_kernel(cutoff: float, size: int) -> Tensor:
    """The circular low-pass filter w J1(w r) / (2 pi r), padded to 21; ``cutoff`` w in radians per pixel."""
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    radius = (x.square() + y.square()).sqrt()
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return _centred(kernel.float())


def _centred(kernel: Tensor) -> Tensor:
    margin = (KERNEL - kernel.shape[0]) // 2
    return F.pad(kernel / kernel.sum(), (margin,) * 4)
