"""Image files in: 8-bit RGB, or a sentence that says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from qartsr.errors import QartsrError

_MODES = {"1", "L", "P", "PA", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}


def read_rgb(path: Path) -> Image.Image:
    """A file as 8-bit RGB. Grey, palette and CMYK images are converted, an opaque alpha channel is dropped.

    Raises QartsrError for an unreadable file, more than 8 bits per channel (rounding them is a choice that changes
    results, so it is left to the owner of the data) and for pixels that are transparent, hence without a colour.
    """
    try:
        with Image.open(path) as image:
            deep = any(_sixteen_bits(tile[3]) for tile in getattr(image, "tile", ()))  # known before loading only
            image.load()
            return _as_rgb(image, deep, path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "no known image format" if "identify" in str(error) else error
        raise QartsrError(f"cannot be read as an image ({reason})", str(path), "replace or remove the file") from error


def _as_rgb(image: Image.Image, deep: bool, path: Path) -> Image.Image:
    if deep or image.mode not in _MODES:
        raise QartsrError(f"is not an 8-bit image (mode {image.mode})", str(path), "convert it to 8 bits per channel")
    if image.has_transparency_data:
        lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
        if lowest != 255:
            raise QartsrError("has transparent pixels", str(path), "flatten it onto a background")
    return image.convert("RGB")


def _sixteen_bits(codec: Any) -> bool:
    """Whether a tile holds 16 bits per channel, which Pillow cuts to 8 in silence (``BGR;16`` is 5 + 6 + 5 bits)."""
    raw = str(codec[0] if isinstance(codec, tuple) else codec)
    return ";16" in raw and not raw.startswith("BGR")
