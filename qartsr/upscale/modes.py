"""Pillow modes in and out: whatever an image is, the network sees 8-bit RGB and the result has the image's mode."""

from __future__ import annotations

import numpy as np
from PIL import Image

from qartsr.errors import QartsrError

_TARGETS = {
    **{mode: mode for mode in ("L", "LA", "RGB", "RGBA")},
    **{"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB"},
    **{"P": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB"},
}
_WITH_ALPHA = {"L": "LA", "RGB": "RGBA"}


def normal(image: Image.Image, where: str = "image") -> Image.Image:
    """The image as L, LA, RGB or RGBA with 8 bits per channel.

    Palettes become colours, colour-keyed transparency becomes alpha, 16-bit grey is rounded to 8 bits.
    Raises QartsrError for an image without pixels and for 32-bit integer or float pixels.
    """
    if 0 in image.size:
        raise QartsrError("has no pixels", where, "choose another image")
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.mode not in _TARGETS:
        raise QartsrError(f"has pixels of mode {image.mode}", where, "convert it to 8 bits per channel")
    target = _TARGETS[image.mode]
    if image.has_transparency_data:
        target = _WITH_ALPHA.get(target, target)
    return image if image.mode == target else image.convert(target)


def colour(image: Image.Image) -> Image.Image:
    """RGB of a normal image; grey is repeated three times, alpha is left out."""
    return image.convert("RGB")


def like(result: Image.Image, source: Image.Image) -> Image.Image:
    """The RGB ``result`` in the mode of the normal image ``source``; alpha is upsampled bicubically to its size."""
    if not source.mode.endswith("A"):
        return result.convert(source.mode)
    opaque = result.convert(source.mode.removesuffix("A"))
    opaque.putalpha(source.getchannel("A").resize(result.size, Image.Resampling.BICUBIC))
    return opaque
