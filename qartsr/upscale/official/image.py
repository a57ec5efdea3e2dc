"""Image in, image out, as the script does it: its sizes before the network, truncation and colour fix behind it.

Values are truncated to 8 bits, not rounded, and the colour fix works on 8-bit images, so sums are taken in the script's
order: 0.1 of the last bit is a grey level.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qartsr.data.pairs import image_tensor
from qartsr.errors import QartsrError
from qartsr.images import SCALE
from qartsr.models import OneStepSR
from qartsr.models.colour_fix import LEVELS, blur
from qartsr.upscale.official.network import Tiling, draw, restore

MULTIPLE = 8
_BICUBIC, _LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS
UNSURE = 0.004
"""Grey levels by which fp32 implementations of the network differ (measured: 0.0035 at most)."""


def restore_image(
    model: OneStepSR, image: Image.Image, process_size: int, tiling: Tiling, seed: int | None
) -> Image.Image:
    """The script's output for an image of any mode, RGB; its size is the script's too, not always 4 times the input's.

    ``seed``: of the posterior's sample; None takes its mode. The colour fix is ``model.align``.
    """
    source = network_size(image.convert("RGB"), process_size)
    lq = network_input(source)
    noise = None if seed is None else draw(model, lq, seed)
    device = model.device
    trace = restore(model, lq.to(device), None if noise is None else noise.to(device), tiling)
    return finish(model.align, trace.decoded, source)


def network_size(image: Image.Image, process_size: int) -> Image.Image:
    """The RGB image at the network's size: enlarged if it is small, then x4, then sides shrunk to multiples of 8.

    The last step is a resize, no crop. Raises QartsrError when it leaves nothing.
    """
    image = enlarged(image, process_size)
    image = image.resize((image.width * SCALE, image.height * SCALE), _BICUBIC)
    width, height = (side - side % MULTIPLE for side in image.size)
    if not width or not height:
        raise QartsrError("is too small", f"image of {image.width}x{image.height}", "choose a larger process size")
    return image.resize((width, height), _LANCZOS)


def enlarged(image: Image.Image, process_size: int) -> Image.Image:
    """An image with a side below ``process_size // 4``, so large that its shorter side has as many pixels.

    One less where the script's product in floating point, rounded down, is one less.
    """
    least = process_size // SCALE
    if min(image.size) >= least:
        return image
    factor = least / min(image.size)
    return image.resize((int(factor * image.width), int(factor * image.height)), _BICUBIC)


def network_input(image: Image.Image) -> Tensor:
    """(1, 3, H, W) float in [-1, 1]; the order of operations is the script's, to the last bit."""
    return image_tensor(image)[None].to(torch.float32) / 255 * 2 - 1


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
    """(sum of the high bands, last low band) of (3, H, W): the blurs of :mod:`qartsr.models.colour_fix`."""
    high = torch.zeros_like(x)
    for level in range(LEVELS):
        low = blur(x[None], 2**level)[0]
        high += x - low
        x = low
    return high, x
