"""Reading and writing image files: PNG, JPEG and WebP."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from qartsr.errors import QartsrError
from qartsr.files import replacing
from qartsr.upscale.modes import normal

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_LONGEST = {"JPEG": 65500, "WEBP": 16383}
"""Pixels of the longest side a format can hold; PNG's limit is out of reach."""
_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
}


def is_image(path: Path) -> bool:
    """Whether the name ends like an image we read."""
    return path.suffix.lower() in FORMATS


def read_image(path: Path, upright: bool = True) -> Image.Image:
    """The picture as L, LA, RGB or RGBA; its ICC profile stays in ``info``.

    ``upright``: turned by its EXIF orientation; else its pixels are as they are stored.
    16-bit grey is rounded to 8 bits; of 16-bit colours Pillow keeps the upper 8. Raises QartsrError for a file that is
    missing, corrupt, animated, without pixels, in another format, or with more pixels than Pillow takes for harmless
    (``Image.MAX_IMAGE_PIXELS``).
    """
    return _read(path, str(path), upright)


def decode_image(data: bytes, where: str) -> Image.Image:
    """The same of a file's bytes, upright; ``where`` names them in messages."""
    return _read(BytesIO(data), where, upright=True)


def _read(file: Path | BytesIO, where: str, upright: bool) -> Image.Image:
    strict = warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning)
    try:
        with strict, Image.open(file, formats=("PNG", "JPEG", "WEBP")) as opened:
            if opened.format in ("PNG", "WEBP") and getattr(opened, "is_animated", False):
                raise QartsrError("is animated", where, "extract its frames first")
            opened.load()
            turned = ImageOps.exif_transpose(opened) if upright else opened.copy()
            profile = b"" if turned.mode == "CMYK" else opened.info.get("icc_profile", b"")
            image = normal(turned, where)
    except FileNotFoundError as error:
        raise QartsrError("does not exist", where, "check the path") from error
    except QartsrError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        millions = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise QartsrError(f"has more than {millions} million pixels", where, "cut it into parts first") from error
    except IsADirectoryError as error:
        raise QartsrError("is a folder", where, "name an image, or upscale the folder") from error
    except PermissionError as error:
        raise QartsrError("may not be read", where, "check its permissions") from error
    except Exception as error:  # decoders have many names for damaged bytes
        raise QartsrError("cannot be read as PNG, JPEG or WebP", where, "check that the file is whole") from error
    image.info = {"icc_profile": profile} if profile else {}
    return image


def check_target(path: Path, image: Image.Image, scale: int = 1) -> None:
    """Raise QartsrError when ``path`` could not hold ``image``, ``scale`` times as wide and high.

    That is an unknown suffix, JPEG for an image with alpha, and a side that is too long for the format.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise QartsrError("has no suffix of an image format", str(path), f"end it in {', '.join(FORMATS)}")
    if kind == "JPEG" and image.mode.endswith("A"):
        raise QartsrError("JPEG cannot hold the transparency of this image", str(path), "write .png or .webp")
    if kind in _LONGEST and scale * max(image.size) > _LONGEST[kind]:
        size = f"{scale * image.width}x{scale * image.height}"
        raise QartsrError(f"{kind} cannot hold {size} pixels", str(path), "write .png")


def encode_png(image: Image.Image, like: Image.Image) -> bytes:
    """The bytes of a PNG file, with the ICC profile of ``like``."""
    buffer = BytesIO()
    _save(buffer, "PNG", image, like)
    return buffer.getvalue()


def write_image(path: Path, image: Image.Image, like: Image.Image) -> None:
    """Write atomically in the format of the suffix, with the ICC profile of ``like``; PNG and WebP are lossless."""
    check_target(path, image)
    kind = FORMATS[path.suffix.lower()]
    with replacing(path) as temporary:
        _save(temporary, kind, image, like)


def _save(file: Path | BytesIO, kind: str, image: Image.Image, like: Image.Image) -> None:
    options = dict(_OPTIONS[kind])
    if profile := like.info.get("icc_profile"):
        options["icc_profile"] = profile
    image.save(file, format=kind, **options)
