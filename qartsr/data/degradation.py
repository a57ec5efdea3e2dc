"""LR from HR, a quarter as wide and high: bicubic, or Real-ESRGAN's two orders with OSEDiff's settings.

Real-ESRGAN (2107.10833): blur, resize, noise, JPEG, twice. The kernels (section 3.1 and appendix) have six bell shapes
and the sinc filter. Operators: torch for filtering and
resizing, Pillow for JPEG (OSEDiff's is a differentiable imitation). As in OSEDiff, nothing sharpens HR first. Noise is
drawn once per image.
"""

from __future__ import annotations

import io
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from qartsr.config.data import BicubicConfig, DegradationConfig
from qartsr.data.pairs import image_tensor
from qartsr.data.rng import RandomDraws
from qartsr.images import SCALE

KERNEL = 21
"""taps of a side; smaller kernels are padded with zeros"""

_SINC = 0.1
_KINDS = ("gauss", "gauss", "general", "general", "plateau", "plateau")  # each isotropic, then anisotropic
_SHARES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
_POWERS = {"gauss": (1.0, 1.0), "general": (0.5, 4.0), "plateau": (1.0, 2.0)}


def random_kernel(sigma: tuple[float, float], dice: RandomDraws) -> Tensor:
    """A (21, 21) kernel that sums to 1: sinc in 10 % of the cases, else one of the six bells of random width."""
    size = _size(dice)
    if dice.chance(_SINC):
        return sinc_kernel(dice.uniform(math.pi / (3 if size < 13 else 5), math.pi), size)
    which = dice.pick(_SHARES)
    kind, width = _KINDS[which], dice.uniform(*sigma)
    height, angle = (dice.uniform(*sigma), dice.uniform(-math.pi, math.pi)) if which % 2 else (width, 0.0)
    return bell_kernel(kind, size, (width, height), angle, _power(_POWERS[kind], dice))


def final_sinc_kernel(dice: RandomDraws) -> Tensor:
    """The (21, 21) sinc filter of the last step: its ringing imitates sharpening and over-compression."""
    return sinc_kernel(dice.uniform(math.pi / 3, math.pi), _size(dice))


def _size(dice: RandomDraws) -> int:
    """An odd size from 7 to 21."""
    return 7 + 2 * dice.pick((1.0,) * 8)


def _power(span: tuple[float, float], dice: RandomDraws) -> float:
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
    """(21, 21): the circular low-pass filter w J1(w r) / (2 pi r), ``size`` wide; ``cutoff`` w in radians per pixel."""
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    radius = (x.square() + y.square()).sqrt()
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)  # the limit at r = 0
    return _padded(kernel.float())


def _padded(kernel: Tensor) -> Tensor:
    return F.pad(kernel / kernel.sum(), ((KERNEL - kernel.shape[0]) // 2,) * 4)


_RESIZE_MODES = ("area", "bilinear", "bicubic")
_GREY_WEIGHTS = (0.2989, 0.587, 0.114)


class Order(NamedTuple):
    """Settings of one order of the pipeline."""

    blur: float
    """probability that it blurs at all"""
    sigma: tuple[float, float]
    """standard deviation of the blur, in pixels"""
    resize: tuple[float, float, float]
    """probabilities of up, down and keep"""
    scale: tuple[float, float]
    """smallest and largest factor"""
    noise: tuple[float, float]
    """standard deviation of Gaussian noise, on 0..255"""
    poisson: tuple[float, float]
    """factor of Poisson noise"""


FIRST = Order(1.0, (0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), (1.0, 30.0), (0.05, 3.0))
SECOND = Order(0.8, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1.0, 25.0), (0.05, 2.5))
_GAUSSIAN, _GREY, _FINAL_SINC = 0.5, 0.4, 0.8
_JPEG = (30, 95)


def realesrgan(hr: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 (3, H, W) -> uint8 (3, H / 4, W / 4). Deterministic in ``generator``."""
    dice = RandomDraws(generator)
    height, width = hr.shape[1:]
    low = (height // SCALE, width // SCALE)
    x = _jpeg(_order(hr[None].float() / 255, FIRST, (height, width), dice), dice)
    x = _order(x, SECOND, low, dice)
    sinc = final_sinc_kernel(dice) if dice.chance(_FINAL_SINC) else None
    if dice.chance(0.5):
        x = _jpeg(_filtered(_resized(x, low, dice), sinc), dice)
    else:
        x = _filtered(_resized(_jpeg(x, dice), low, dice), sinc)
    return (x[0] * 255).round().clamp(0, 255).to(torch.uint8)


def _order(x: Tensor, order: Order, base: tuple[int, int], dice: RandomDraws) -> Tensor:
    """Blur, resize to ``base`` times a random factor, add noise."""
    if dice.chance(order.blur):
        x = _filtered(x, random_kernel(order.sigma, dice))
    move = dice.pick(order.resize)
    factor = (dice.uniform(1.0, order.scale[1]), dice.uniform(order.scale[0], 1.0), 1.0)[move]
    return noisy(_resized(x, (max(1, int(base[0] * factor)), max(1, int(base[1] * factor))), dice), order, dice)


def _filtered(x: Tensor, kernel: Tensor | None) -> Tensor:
    """Each channel filtered. Borders are reflected, or repeated where the image is smaller than half the kernel."""
    if kernel is None:
        return x
    half = KERNEL // 2
    padded = F.pad(x, (half,) * 4, mode="reflect" if min(x.shape[2:]) > half else "replicate")
    return F.conv2d(padded.transpose(0, 1), kernel[None, None]).transpose(0, 1)


def _resized(x: Tensor, size: tuple[int, int], dice: RandomDraws) -> Tensor:
    """By area, bilinear or bicubic, without antialiasing."""
    return F.interpolate(x, size, mode=_RESIZE_MODES[dice.pick((1.0, 1.0, 1.0))])


def noisy(x: Tensor, order: Order, dice: RandomDraws) -> Tensor:
    """Gaussian noise half of the time, else Poisson noise; equal in all channels in 40 % of the cases.

    ``x`` (1, 3, H, W) in [0, 1], and so is the result.
    """
    gaussian, grey = dice.chance(_GAUSSIAN), dice.chance(_GREY)
    if gaussian:
        shape = (1, 1, *x.shape[2:]) if grey else x.shape
        return (x + dice.normal(shape) * dice.uniform(*order.noise) / 255).clamp(0, 1)
    rates = (x * x.new_tensor(_GREY_WEIGHTS).view(1, 3, 1, 1)).sum(1, keepdim=True) if grey else x
    rates = (rates * 255).round().clamp(0, 255) / 255
    levels = 2.0 ** math.ceil(math.log2(len(rates.unique())))
    return (x + (dice.poisson(rates * levels) / levels - rates) * dice.uniform(*order.poisson)).clamp(0, 1)


def _jpeg(x: Tensor, dice: RandomDraws) -> Tensor:
    """A real JPEG round trip (chroma halved) at a quality of 30 to 95."""
    pixels = (x[0] * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=round(dice.uniform(*_JPEG)))
    with Image.open(buffer) as image:
        return image_tensor(image)[None].float() / 255


def degrade(hr: Tensor, config: DegradationConfig, generator: torch.Generator) -> Tensor:
    """uint8 (3, H, W) -> uint8 (3, H / 4, W / 4). Deterministic in ``generator``.

    Raises ValueError unless H and W are multiples of 4.
    """
    if hr.dtype != torch.uint8 or hr.ndim != 3 or any(side % SCALE or not side for side in hr.shape[1:]):
        raise ValueError(f"HR must be uint8 (3, H, W) with sides that are multiples of {SCALE}, not {tuple(hr.shape)}")
    return bicubic(hr) if isinstance(config, BicubicConfig) else realesrgan(hr, generator)


def bicubic(hr: Tensor) -> Tensor:
    """Antialiased bicubic x1/4 by Pillow on 8-bit: uint8 (3, H, W) -> uint8 (3, H/4, W/4)."""
    image = Image.fromarray(hr.permute(1, 2, 0).contiguous().numpy())
    return image_tensor(image.resize((image.width // SCALE, image.height // SCALE), Image.Resampling.BICUBIC))
