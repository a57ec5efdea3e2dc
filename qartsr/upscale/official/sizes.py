"""What the script makes of an image before the network sees it."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from qartsr.data.pairs import SCALE, image_tensor

MULTIPLE = 8
_BICUBIC, _LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS


def network_size(image: Image.Image, process_size: int) -> Image.Image:
    """The RGB image at the network's size.

    An image with a side below ``process_size // 4`` is enlarged until its shorter side has that many pixels; then x4;
    then sides are shrunk to multiples of 8 (a resize, no crop).
    """
    least = process_size // SCALE
    if image.width < least or image.height < least:
        factor = least / min(image.size)
        image = image.resize((int(factor * image.width), int(factor * image.height)), _BICUBIC)
    image = image.resize((image.width * SCALE, image.height * SCALE), _BICUBIC)
    return image.resize((image.width - image.width % MULTIPLE, image.height - image.height % MULTIPLE), _LANCZOS)


def network_input(image: Image.Image) -> Tensor:
    """(1, 3, H, W) float in [-1, 1]; the order of operations is the script's, to the last bit."""
    return image_tensor(image)[None].to(torch.float32) / 255 * 2 - 1
