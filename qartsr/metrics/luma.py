"""Luma and its PSNR on tensors: what training reports as it goes; evaluation itself goes through pyiqa."""

from __future__ import annotations

import math

from torch import Tensor


def luma(image: Tensor) -> Tensor:
    """(..., 3, H, W) RGB in [0, 1] -> (..., H, W) BT.601 studio-swing Y in [16/255, 235/255]."""
    red, green, blue = image.unbind(-3)
    return (65.481 * red + 128.553 * green + 24.966 * blue + 16) / 255


def psnr_y(image: Tensor, reference: Tensor) -> float:
    """PSNR of the lumas in dB, no border crop; both RGB (..., 3, H, W) in [0, 1].

    Equal images: 80 dB, by the epsilon of pyiqa.
    """
    error = float((luma(image.double()) - luma(reference.double())).square().mean())
    return 10 * math.log10(1 / (error + 1e-8))
