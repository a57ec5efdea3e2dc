"""What a pipeline takes for an image: Pillow's, an array, or the path of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qartsr.errors import QartsrError
from qartsr.upscale.image_files import read_image

Picture = Image.Image | np.ndarray[Any, Any] | str | Path


def as_image(picture: Picture) -> Image.Image:
    """The Pillow image of ``picture``.

    A Pillow image is taken as it is, its EXIF orientation too: whoever opened it decides. An array is uint8, (H, W) or
    (H, W, C) with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. A path is read by :func:`read_image`, upright.
    Raises QartsrError for anything else: floats have no agreed range, and BGR cannot be told from RGB.
    """
    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if isinstance(picture, str | Path):
        return read_image(Path(picture))
    kind = type(picture).__name__  # type: ignore[unreachable]  # a caller without a type checker
    raise QartsrError(f"is a {kind}", "image", "give a Pillow image, an array of uint8 or the path of a file")


def _from_array(pixels: np.ndarray[Any, Any]) -> Image.Image:
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 2, 3, 4))
    if pixels.dtype != np.uint8 or not fits:
        what = f"is an array of {pixels.dtype} with shape {pixels.shape}"
        raise QartsrError(what, "image", "give uint8 of shape (H, W) or (H, W, C), C from 1 to 4; several as a list")
    if not pixels.size:
        raise QartsrError("has no pixels", "image", "choose another image")
    return Image.fromarray(
        np.ascontiguousarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    )
