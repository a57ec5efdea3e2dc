"""LR from HR, a quarter as wide and high."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from qartsr.config.data import BicubicConfig, DegradationConfig
from qartsr.data.pairs import SCALE, image_tensor
from qartsr.data.realesrgan import realesrgan


def degrade(hr: Tensor, config: DegradationConfig, generator: torch.Generator) -> Tensor:
    """uint8 (3, H, W) -> uint8 (3, H / 4, W / 4). Deterministic in ``generator``.

    Raises ValueError unless H and W are multiples of 4.
    """
    if hr.dtype != torch.uint8 or hr.ndim != 3 or any(side % SCALE or not side for side in hr.shape[1:]):
        raise ValueError(f"HR must be uint8 (3, H, W) with sides that are multiples of {SCALE}, not {tuple(hr.shape)}")
    return bicubic(hr) if isinstance(config, BicubicConfig) else realesrgan(hr, generator)


def bicubic(hr: Tensor) -> Tensor:
    """Antialiased bicubic x1/4 by Pillow on 8-bit."""
    image = Image.fromarray(hr.permute(1, 2, 0).contiguous().numpy())
    return image_tensor(image.resize((image.width // SCALE, image.height // SCALE), Image.Resampling.BICUBIC))
