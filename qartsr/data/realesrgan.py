"""Real-ESRGAN's two-order degradation (2107.10833) with OSEDiff's settings: blur, resize, noise, JPEG, twice.

Operators: torch for filtering and resizing, Pillow for JPEG (OSEDiff's is a differentiable imitation). As in OSEDiff,
nothing sharpens HR first. Noise is drawn once per image.
"""

from __future__ import annotations

import io
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from qartsr.data.blur import KERNEL, final_sinc_kernel, random_kernel
from qartsr.data.dice import Dice
from qartsr.data.pairs import SCALE, image_tensor

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
    dice = Dice(generator)
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


def _order(x: Tensor, order: Order, base: tuple[int, int], dice: Dice) -> Tensor:
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


def _resized(x: Tensor, size: tuple[int, int], dice: Dice) -> Tensor:
    """By area, bilinear or bicubic, without antialiasing."""
    return F.interpolate(x, size, mode=_RESIZE_MODES[dice.pick((1.0, 1.0, 1.0))])


def noisy(x: Tensor, order: Order, dice: Dice) -> Tensor:
    """Gaussian noise half of the time, else Poisson noise; equal in all channels in 40 % of the cases. [0, 1] out."""
    gaussian, grey = dice.chance(_GAUSSIAN), dice.chance(_GREY)
    if gaussian:
        shape = (1, 1, *x.shape[2:]) if grey else x.shape
        return (x + dice.normal(shape) * dice.uniform(*order.noise) / 255).clamp(0, 1)
    rates = (x * x.new_tensor(_GREY_WEIGHTS).view(1, 3, 1, 1)).sum(1, keepdim=True) if grey else x
    rates = (rates * 255).round().clamp(0, 255) / 255
    levels = 2.0 ** math.ceil(math.log2(len(rates.unique())))
    return (x + (dice.poisson(rates * levels) / levels - rates) * dice.uniform(*order.poisson)).clamp(0, 1)


def _jpeg(x: Tensor, dice: Dice) -> Tensor:
    """A real JPEG round trip (chroma halved) at a quality of 30 to 95."""
    pixels = (x[0] * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=round(dice.uniform(*_JPEG)))
    with Image.open(buffer) as image:
        return image_tensor(image)[None].float() / 255
