"""Image files as 8-bit RGB, for whoever measures or trains: what cannot be that without a choice is refused."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from qartsr.errors import QartsrError
from qartsr.images.picture import opaque
from qartsr.images.read import read_image

SCALE = 4


def read_rgb(path: Path, round_wide: bool = False, max_pixels: int | None = None) -> Image.Image:
    """A file as 8-bit RGB, upright. Grey, palette and CMYK images are converted, an opaque alpha channel is dropped.

    Raises QartsrError for an unreadable file, for pixels that are transparent, hence without a colour, and, unless
    ``round_wide``, for 16 bits per channel: rounding them changes results, so it is left to the owner of the data.
    """
    image = read_image(path, max_pixels=max_pixels)
    if not round_wide and (image.wide is not None or any("16 bits" in note for note in image.notes)):
        raise QartsrError(
            f"is not an 8-bit image (16 bits, {image.mode})", str(path), "convert it to 8 bits per channel"
        )
    if not opaque(image):
        raise QartsrError("has transparent pixels", str(path), "flatten it onto a background")
    return image.convert("RGB")


def upsample(lr: Image.Image) -> Image.Image:
    """x4, Pillow bicubic on 8-bit: the network's input (OSEDiff)."""
    return lr.resize((lr.width * SCALE, lr.height * SCALE), Image.Resampling.BICUBIC)
