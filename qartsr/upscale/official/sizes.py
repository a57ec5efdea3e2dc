"""What the script makes of an image before the network sees it."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from qartsr.data.pairs import image_tensor
from qartsr.errors import QartsrError
from qartsr.images import SCALE

MULTIPLE = 8
_BICUBIC, _LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS


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
    """An image with a side below ``process_size // 4``, so large that its shorter side has as many pixels."""
    least = process_size // SCALE
    if min(image.size) >= least:
        return image
    factor = least / min(image.size)
    return image.resize((int(factor * image.width), int(factor * image.height)), _BICUBIC)


def network_input(image: Image.Image) -> Tensor:
    """(1, 3, H, W) float in [-1, 1]; the order of operations is the script's, to the last bit."""
    return image_tensor(image)[None].to(torch.float32) / 255 * 2 - 1
