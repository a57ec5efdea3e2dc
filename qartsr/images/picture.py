"""A picture as the whole project passes it on: a Pillow image that saves itself with all that belongs to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qartsr.errors import QartsrError, printable
from qartsr.images import metadata

_LOG = logging.getLogger("qartsr")
Wide = np.ndarray[Any, np.dtype[np.uint16]]
"""(H, W, C), C as in the mode: L 1, LA 2, RGB 3, RGBA 4."""
_TARGETS = {
    **{mode: mode for mode in ("L", "LA", "RGB", "RGBA")},
    **{"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB"},
    **{"P": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB"},
}
_WITH_ALPHA = {"L": "LA", "RGB": "RGBA"}
MODES = ("L", "LA", "RGB", "RGBA")
"""By number of channels, less one."""


class Picture(Image.Image):
    """Mode L, LA, RGB or RGBA. ``info`` holds what is kept of a file, see :mod:`qartsr.images.metadata`.

    ``wide`` are its pixels in 16 bits where it has them (Pillow has no such colours): uint16 (H, W, C), of which the
    image itself is the rounding. ``notes`` say what was lost on the way.
    """

    wide: Wide | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, image: Image.Image, info: Mapping[Any, Any], wide: Wide | None = None, notes: tuple[str, ...] = ()
    ) -> Picture:
        """``image``, already in one of the four modes, with this ``info``; pixels are shared, not copied."""
        made = cls()
        made.im = image.im
        made._mode, made._size = image.mode, image.size
        made.info, made.wide, made.notes = dict(info), wide, notes
        return made

    def __eq__(self, other: object) -> bool:
        """As Pillow's, which holds no two classes to be equal."""
        if not isinstance(other, Image.Image):
            return False
        mine, theirs = ((image.mode, image.size, image.info) for image in (self, other))
        return mine == theirs and self.tobytes() == other.tobytes()

    __hash__ = None  # type: ignore[assignment]

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """As Pillow's, and metadata and 16 bits go along; what the format cannot hold is logged (``qartsr``).

        Options for the encoder are handed on; with them, 16 bits become 8.
        """
        from qartsr.images.write import encode, known

        kind = known(format or Path(os.fsdecode(fp) if isinstance(fp, str | bytes | Path) else "").suffix)
        if kind is None or params.get("save_all"):
            super().save(fp, format, **params)
            return
        data, notes = encode(self, kind, **params)
        for note in notes:
            _LOG.warning("%s", printable(note))
        if hasattr(fp, "write"):
            fp.write(data)
        else:
            Path(os.fsdecode(fp)).write_bytes(data)

    def still_wide(self) -> Wide | None:
        """``wide``, unless the image has been drawn upon since."""
        if self.wide is None or not np.array_equal(np.asarray(narrowed(self.wide)), np.asarray(self)):
            return None
        return self.wide


def opaque(image: Image.Image) -> bool:
    """Whether no pixel of an image in one of the four modes is transparent, not even in part."""
    return not image.mode.endswith("A") or image.getchannel("A").getextrema()[0] == 255


def narrowed(wide: Wide) -> Image.Image:
    """Rounded to 8 bits."""
    values = ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)


def normal(image: Image.Image, where: str = "image") -> Image.Image:
    """The image as L, LA, RGB or RGBA with 8 bits per channel.

    Palettes become colours, colour-keyed transparency becomes alpha, 16-bit grey is rounded to 8 bits.
    Raises QartsrError for an image without pixels and for 32-bit integer or float pixels.
    """
    if 0 in image.size:
        raise QartsrError("has no pixels", where, "choose another image")
    if image.mode.startswith("I;16"):
        return narrowed(keyed(np.asarray(image).astype(np.uint16)[..., None], image.info.get("transparency")))
    if image.mode not in _TARGETS:
        raise QartsrError(f"has pixels of mode {image.mode}", where, "convert it to 8 or 16 bits per channel")
    target = _TARGETS[image.mode]
    if image.has_transparency_data:
        target = _WITH_ALPHA.get(target, target)
    return image if image.mode == target else image.convert(target)


def keyed(wide: Wide, key: Any) -> Wide:
    """``wide`` with alpha 0 where a pixel is the key of a tRNS chunk (a number, or three), if there is one."""
    if key is None or isinstance(key, bytes) or wide.shape[2] not in (1, 3):
        return wide
    alpha = np.where((wide == np.asarray(key, np.uint16)).all(2), 0, 65535).astype(np.uint16)
    return np.dstack([wide, alpha])


def as_picture(image: Image.Image, where: str = "image") -> Picture:
    """A loaded Pillow image in one of the four modes, with 16 bits where it has them. Raises QartsrError."""
    if isinstance(image, Picture):
        return image
    notes: list[str] = []
    plain = normal(image, where)
    wide = None
    if image.mode.startswith("I;16"):
        wide = keyed(np.asarray(image).astype(np.uint16)[..., None], image.info.get("transparency"))
    info = metadata.of_pillow(image.info, notes)
    if image.mode in ("CMYK", "LAB"):
        info.pop("icc_profile", None)  # of other colours than those it has now
    return Picture.of(plain, info, wide, tuple(notes))


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
