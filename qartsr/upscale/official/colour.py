"""From the network's output to the image file: truncation to 8 bits, then the colour fix on 8-bit images.

Values are truncated, not rounded, so sums are taken in the script's order: 0.1 of the last bit is a grey level.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from qartsr.data.pairs import image_tensor

LEVELS = 5
_KERNEL = torch.tensor([[0.0625, 0.125, 0.0625], [0.125, 0.25, 0.125], [0.0625, 0.125, 0.0625]])


def finish(kind: str, decoded: Tensor, source: Image.Image) -> Image.Image:
    """``decoded`` (1, 3, H, W), not clamped, with the colours of ``source``; ``kind`` is none, adain or wavelet."""
    image = _image(decoded[0].float().cpu().clamp(-1, 1) * 0.5 + 0.5)
    if kind == "none":
        return image
    fix = {"adain": _adain, "wavelet": _wavelet}[kind]
    return _image(fix(_unit(image), _unit(source))[0].clamp(0, 1))


def _unit(image: Image.Image) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return image_tensor(image)[None].float() / 255


def _image(values: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] -> 8-bit image, truncated."""
    return Image.fromarray(np.ascontiguousarray(values.mul(255).byte().permute(1, 2, 0).numpy()))


def _adain(target: Tensor, source: Tensor) -> Tensor:
    mean, std = _moments(target)
    source_mean, source_std = _moments(source)
    return (target - mean) / std * source_std + source_mean


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    flat = x.flatten(2)
    shape = (*x.shape[:2], 1, 1)
    return flat.mean(2).reshape(shape), (flat.var(2) + 1e-5).sqrt().reshape(shape)


def _wavelet(target: Tensor, source: Tensor) -> Tensor:
    """All high bands of ``target`` and the lowest band of ``source``."""
    return _bands(target)[0] + _bands(source)[1]


def _bands(x: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of the high bands, last low band): five a-trous blurs of radius 1 to 16, replicate padding."""
    kernel = _KERNEL.to(x).expand(x.shape[1], 1, 3, 3)
    high = torch.zeros_like(x)
    for level in range(LEVELS):
        radius = 2**level
        low = F.conv2d(F.pad(x, (radius,) * 4, mode="replicate"), kernel, groups=x.shape[1], dilation=radius)
        high += x - low
        x = low
    return high, x
