"""A picture at another size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from qartsr.images.picture import Picture, Wide, narrowed


def resized(picture: Picture, size: Sequence[int]) -> Picture:
    """``picture`` with ``size`` (width, height), by Lanczos (a = 3), with its metadata.

    16 bits stay 16. Colours are weighted by alpha, so that what is under alpha 0 is not seen.
    """
    width, height = size
    if (width, height) == picture.size:
        return picture
    wide = picture.still_wide()
    if wide is None:  # Pillow weighs the colours of these itself
        smaller = picture.resize((width, height), Image.Resampling.LANCZOS)
        return Picture.of(smaller, picture.info, notes=picture.notes)
    made = _wide(wide, (width, height))
    return Picture.of(narrowed(made), picture.info, made, picture.notes)


def _wide(wide: Wide, size: tuple[int, int]) -> Wide:
    values = wide.astype(np.float32)
    if wide.shape[2] in (1, 3):
        return _rounded(_lanczos(values, size))
    alpha = _lanczos(values[..., -1:], size)
    weighted = _lanczos(values[..., :-1] * (values[..., -1:] / 65535), size)
    colours = np.divide(weighted * 65535, alpha, out=np.zeros_like(weighted), where=alpha >= 1)
    return _rounded(np.concatenate([colours, alpha], axis=2))


def _lanczos(planes: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """(H, W, C) float."""
    channels = [Image.fromarray(np.ascontiguousarray(plane)) for plane in planes.transpose(2, 0, 1)]
    return np.stack([np.asarray(plane.resize(size, Image.Resampling.LANCZOS)) for plane in channels], axis=2)


def _rounded(values: np.ndarray[Any, Any]) -> Wide:
    return np.clip(np.rint(values), 0, 65535).astype(np.uint16)
