"""LR from HR: bicubic x4 by Pillow on 8-bit, the reference most papers share."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from qartsr.config.data import BicubicConfig, DegradationConfig
from qartsr.data.pairs import SCALE, image_tensor
from qartsr.data.realesrgan import realesrgan


def degrade(hr: Tensor, config: DegradationConfig, generator: torch.Generator) -> Tensor:
    """uint8 (3, H, W) -> uint8 (3, H / 4, W / 4); H and W are multiples of 4. Deterministic in ``generator``."""
    if isinstance(config, BicubicConfig):
        return bicubic(hr)
    return realesrgan(hr, generator)


def bicubic(hr: Tensor) -> Tensor:
    """Antialiased bicubic x1/4."""
    image = Image.fromarray(hr.permute(1, 2, 0).contiguous().numpy())
    return image_tensor(image.resize((image.width // SCALE, image.height // SCALE), Image.Resampling.BICUBIC))
