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


UNSURE = 0.004
"""Grey levels by which fp32 implementations of the network differ (measured: 0.0035 at most)."""


def finish(kind: str, decoded: Tensor, source: Image.Image) -> Image.Image:
    """``decoded`` (1, 3, H, W), not clamped, with the colours of ``source``; ``kind`` is none, adain or wavelet."""
    decoded = decoded[0].float().cpu()
    target = _truncated(decoded.clamp(-1, 1) * 0.5 + 0.5)
    if kind == "none":
        return _picture(target)
    if kind == "wavelet":
        return _picture(_truncated(_wavelet(_unit(target), _unit(image_tensor(source)))))
    return _picture(_adain(target, image_tensor(source), (decoded * 0.5 + 0.5) * 255))


def _truncated(values: Tensor) -> Tensor:
    """[0, 1], clamped to it -> uint8."""
    return values.clamp(0, 1).mul(255).byte()


def _unit(pixels: Tensor) -> Tensor:
    """uint8 -> [0, 1]."""
    return pixels.float() / 255


def _picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def _adain(target: Tensor, source: Tensor, levels: Tensor) -> Tensor:
    """The source's mean and standard deviation per channel; all (3, H, W), uint8 but for ``levels``.

    Where the network's ``levels``, before truncation, are so close to a whole number that another machine's rounding
    error would make it the next one, the script's own result is not defined to the level; and a gain above 1 can make
    two levels of it. There the middle of both results is taken, so each of them is at most one level away.
    """
    mean, std = _moments(_unit(target))
    source_mean, source_std = _moments(_unit(source))

    def fixed(pixels: Tensor) -> Tensor:
        return _truncated((_unit(pixels) - mean) / std * source_std + source_mean).int()

    whole = levels.round()
    ours, other = fixed(target), fixed(torch.where(levels < whole, whole, whole - 1).clamp(0, 255))
    torn = ((levels - whole).abs() < UNSURE) & ((ours - other).abs() > 1)
    return torch.where(torn, (ours + other) // 2, ours).byte()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Per channel, (3, 1, 1)."""
    flat = x.flatten(1)
    return flat.mean(1)[:, None, None], (flat.var(1) + 1e-5).sqrt()[:, None, None]


def _wavelet(target: Tensor, source: Tensor) -> Tensor:
    """All high bands of ``target`` and the lowest band of ``source``."""
    return _bands(target)[0] + _bands(source)[1]


def _bands(x: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of the high bands, last low band): five a-trous blurs of radius 1 to 16, replicate padding."""
    kernel = _KERNEL.to(x).expand(x.shape[0], 1, 3, 3)
    high = torch.zeros_like(x)
    for level in range(LEVELS):
        radius = 2**level
        padded = F.pad(x[None], (radius,) * 4, mode="replicate")
        low = F.conv2d(padded, kernel, groups=x.shape[0], dilation=radius)[0]
        high += x - low
        x = low
    return high, x
