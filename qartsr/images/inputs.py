"""What is taken for an image: by a pipeline a picture, Pillow's, an array, or a path; in training RGB files only."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from qartsr.errors import QartsrError
from qartsr.images.picture import Picture, as_picture, narrowed, opaque
from qartsr.images.read import decode_image, read_image
from qartsr.images.wide import depth

Some = Image.Image | np.ndarray[Any, Any] | str | Path
"""What a pipeline takes for an image."""


def as_image(image: Some) -> Picture:
    """The picture of what somebody gives a pipeline.

    A Pillow image is taken as it is, its orientation too: whoever opened it decides. An array is uint8 or uint16,
    (H, W) or (H, W, C) with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. A path is read by
    :func:`read_image`, upright. Raises QartsrError for anything else (floats have no agreed range, and BGR cannot be
    told from RGB), and for a Pillow image whose file is damaged, closed or animated.
    """
    if isinstance(image, Image.Image):
        return _of_pillow(image)
    if isinstance(image, np.ndarray):
        return _of_array(image)
    if isinstance(image, str | Path):
        return read_image(Path(image))
    kind = type(image).__name__  # type: ignore[unreachable]  # a caller without a type checker
    raise QartsrError(f"is a {kind}", "image", "give a Pillow image, an array of uint8 or the path of a file")


def _of_pillow(image: Image.Image) -> Picture:
    where = str(getattr(image, "filename", "") or "image")
    if getattr(image, "n_frames", 1) > 1 and getattr(image, "format", "") not in ("JPEG", "MPO"):
        raise QartsrError("is animated", where, "give its frames one by one, each as a copy")
    lazy = isinstance(image, ImageFile) and getattr(image, "tile", None) and depth(image) == 16
    try:
        whole = _whole(image) if lazy or getattr(image, "format", "") == "PNG" else None
        if whole is not None and whole.size == image.size:
            with contextlib.suppress(Exception):  # what it cannot read has been read here
                image.load()  # closes its file, as Pillow does; the caller may go on using it
            return whole
        image.load()
    except (QartsrError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise QartsrError(
            f"cannot be loaded ({reason[:200]})", where, "check that its file is whole and open"
        ) from error
    return as_picture(image, where)


def _whole(image: Image.Image) -> Picture | None:
    """All that the file of an image that is not loaded holds, where Pillow would leave out some of it."""
    file = getattr(image, "fp", None)
    if not getattr(image, "tile", None) or file is None:
        return None
    place = file.tell()
    try:
        file.seek(0)
        return decode_image(file.read(), "image", upright=False, max_pixels=image.width * image.height)
    finally:
        file.seek(place)


def _of_array(pixels: np.ndarray[Any, Any]) -> Picture:
    shaped = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.dtype not in (np.uint8, np.uint16) or shaped.ndim != 3 or shaped.shape[2] not in (1, 2, 3, 4):
        what = f"is an array of {pixels.dtype} with shape {pixels.shape}"
        do = "give uint8 or uint16 (H, W), or (H, W, C) with C from 1 to 4; several as a list"
        raise QartsrError(what, "image", do)
    if 0 in shaped.shape:
        raise QartsrError("has no pixels", "image", "choose another image")
    if pixels.dtype == np.uint16:
        wide = np.ascontiguousarray(shaped)
        return Picture.of(narrowed(wide), {}, wide)
    return Picture.of(Image.fromarray(np.ascontiguousarray(shaped[..., 0] if shaped.shape[2] == 1 else shaped)), {})


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
