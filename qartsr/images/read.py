"""Image files and their bytes in: one way in for every door."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from qartsr.errors import QartsrError
from qartsr.images import metadata, png
from qartsr.images.picture import Picture, Wide, narrowed, normal
from qartsr.images.wide import depth, read_wide

READABLE = "PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF"
SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .jif .webp .tif .tiff .bmp .dib .gif .avif".split()  # noqa: SIM905
)
"""What the name of a file in a folder must end in to be taken for an image."""
MAX_PIXELS = 1 << 29
"""Most pixels of a file that is read unasked: a small file can claim to be as large as the memory."""
ALLOWANCE = "QARTSR_MAX_PIXELS"
"""The environment variable that says otherwise."""

_DATA = re.compile(r"(?i)^data:[\w/.+;=-]*;base64,")
_CANVAS = 256
"""Times the pixels of its one picture that a GIF file's canvas may have: the rest is made of nothing."""
_ADOBE = 14
"""Bytes of Adobe's segment of a JPEG file, its length among them; a shorter one tells nothing of the colours."""
_LIMIT = Lock()
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _Tiff(TiffImageFile):
    """Pixels as they are stored: Pillow's own turns them, and refuses large ones, by rules that are not ours."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size).im
        ImageFile.load_prepare(self)

    def load_end(self) -> None:
        pass


class _Kind(NamedTuple):
    name: str
    begins: Callable[[bytes], bool]
    opener: type[ImageFile]


_AVIF = (b"avif", b"avis", b"mif1", b"msf1", b"miaf")
_KINDS = (
    _Kind("PNG", lambda head: head.startswith(png.SIGNATURE), PngImageFile),
    _Kind("JPEG", lambda head: head.startswith(b"\xff\xd8\xff"), JpegImageFile),
    _Kind("WebP", lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", WebPImageFile),
    _Kind("TIFF", lambda head: head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _Tiff),
    _Kind("GIF", lambda head: head[:6] in (b"GIF87a", b"GIF89a"), GifImageFile),
    _Kind("AVIF", lambda head: head[4:8] == b"ftyp" and head[8:12] in _AVIF, AvifImageFile),
    _Kind("BMP", lambda head: head[:2] == b"BM", BmpImageFile),
)


class TooLargeError(QartsrError):
    """More pixels than are allowed."""


def is_image(path: Path) -> bool:
    """Whether the name ends like an image we read."""
    return path.suffix.lower() in SUFFIXES


def read_image(path: Path, upright: bool = True, max_pixels: int | None = None) -> Picture:
    """The picture of a file, whatever its name ends in, as L, LA, RGB or RGBA with what is kept of its metadata.

    ``upright``: turned by its orientation, which is 1 then; else pixels and orientation are as they are stored.
    ``max_pixels``: most of them (default: QARTSR_MAX_PIXELS, else MAX_PIXELS). Raises QartsrError for a file that is
    missing, damaged, animated, of several pages, without pixels, too large or in another format.
    """
    return decode_image(_bytes(path), str(path), upright, max_pixels)


def from_base64(text: Any, where: str) -> bytes:
    """An image file's bytes from base64, in lines or not, or from a ``data:`` address. Raises QartsrError."""
    try:
        return base64.b64decode(_DATA.sub("", "".join(text.split())), validate=True)
    except (binascii.Error, ValueError, TypeError, AttributeError) as error:
        raise QartsrError("is not base64", where, f"send the bytes of a {READABLE} file in base64") from error


def decode_image(data: bytes, where: str, upright: bool = True, max_pixels: int | None = None) -> Picture:
    """The same of a file's bytes; ``where`` names them in messages."""
    kind = next((kind for kind in _KINDS if kind.begins(data[:16])), None)
    if kind is None:
        what = f"cannot be read as {READABLE}" if data else "is empty"
        raise QartsrError(what, where, "convert it to one of these formats" if data else "make it again")
    try:
        return _decoded(data, kind, where, upright, allowed(max_pixels))
    except (QartsrError, MemoryError):
        raise
    except Exception as error:  # decoders have many names for damaged bytes
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        what = f"cannot be read as {kind.name} ({reason[:200]})"
        odd = any(word in reason for word in ("unknown", "nsupported", "not supported"))
        do = "convert it to another format" if odd else "check that the file is whole"
        raise QartsrError(what, where, do) from error


def allowed(max_pixels: int | None = None) -> int:
    """How many pixels a file may have. Raises QartsrError when the environment variable is no number."""
    told = os.environ.get(ALLOWANCE, "").strip()
    if max_pixels is not None or not told:
        return MAX_PIXELS if max_pixels is None else max_pixels
    if not told.isdecimal():
        raise QartsrError(f"{told!r} is no number of pixels", ALLOWANCE, f"set it to a number such as {MAX_PIXELS}")
    return int(told)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise QartsrError("does not exist", str(path), "check the path") from error
    except IsADirectoryError as error:
        raise QartsrError("is a folder", str(path), "name an image, or upscale the folder") from error
    except PermissionError as error:
        raise QartsrError("may not be read", str(path), "check its permissions") from error
    except (OSError, ValueError) as error:  # the second: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise QartsrError(f"cannot be read ({reason})", str(path), "check the path") from error


def _decoded(data: bytes, kind: _Kind, where: str, upright: bool, most: int) -> Picture:
    notes: list[str] = []
    parts = png.parse(data) if kind.name == "PNG" else None
    pixels = data if parts is None else parts.pixels

    def again() -> ImageFile:
        return kind.opener(io.BytesIO(pixels))

    opened = _opened(again, data, kind, notes)
    if isinstance(opened, _Tiff):
        opened._size = opened._tile_size
    _demand_size(opened.size, most, where)
    _demand_one(opened, kind, parts.frames if parts else getattr(opened, "n_frames", 1), where)
    if parts is not None:
        png.demand_rows(pixels)
    elif kind.name == "JPEG":
        _demand_blocks(opened.size, data)
    elif kind.name == "GIF":
        left, top, right, bottom = opened.tile[0][1] or (0, 0, *opened.size)
        if opened.width * opened.height > _CANVAS * (right - left) * (bottom - top):
            raise ValueError(f"its canvas of {opened.width} x {opened.height} is next to empty")
    info = _info(opened, parts, notes)
    if parts and parts.bits < 8 and opened.mode == "L" and "transparency" in opened.info:
        opened.info["transparency"] *= 255 // ((1 << parts.bits) - 1)  # of pixels that Pillow has spread over 0..255
    wide = _wide(opened, again, notes) if depth(opened) == 16 else None
    if wide is None:
        opened.load()
        opened = _grey(opened)
        if opened.mode in ("CMYK", "LAB") and info.pop("icc_profile", None):
            notes.append(f"its {opened.mode} colours are converted to RGB without its ICC profile, which is left out")
    plain = normal(opened, where) if wide is None else narrowed(wide)
    turn = metadata.turned(info) if upright else 1
    if turn != 1:
        plain, wide = plain.transpose(_TURNS[turn]), None if wide is None else _turned(wide, turn)
    return Picture.of(plain, metadata.kept(info, upright=upright), wide, tuple(notes))


def _opened(again: Callable[[], ImageFile], data: bytes, kind: _Kind, notes: list[str]) -> ImageFile:
    """A JPEG file whose metadata stops Pillow is opened without them; Pillow's own limit of pixels is not ours."""
    if kind.name in ("WebP", "GIF"):
        with _LIMIT:
            told, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return again()
            finally:
                Image.MAX_IMAGE_PIXELS = told
    try:
        return again()
    except Exception as error:
        if kind.name != "JPEG":
            raise
        for exif_only, what in ((True, "EXIF data"), (False, "metadata")):
            with suppress(Exception):
                bare = kind.opener(io.BytesIO(_bare_jpeg(data, exif_only)))
                notes.append(f"its {what} cannot be read and is left out ({str(error) or type(error).__name__})")
                return bare
        raise


def _grey(opened: ImageFile) -> Any:
    """One bit as eight, its transparent level too, which Pillow would forget."""
    if opened.mode != "1" or "transparency" not in opened.info:
        return opened
    grey = opened.convert("L")
    grey.info["transparency"] = opened.info["transparency"]
    return grey


def _bare_jpeg(data: bytes, exif_only: bool) -> bytes:
    """Without EXIF, or without any application segment or comment but Adobe's, which tells the colours."""
    kept, place = [data[:2]], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        beside = 0xE0 <= marker <= 0xEF or marker == 0xFE
        odd = data[place + 4 : place + 8] == b"Exif" if exif_only else marker != 0xEE or length < _ADOBE
        if not (beside and odd):
            kept.append(data[place : place + 2 + length])
        place += 2 + length
    return b"".join([*kept, data[place:]])


def _demand_size(size: tuple[int, int], most: int, where: str) -> None:
    if size[0] * size[1] > most:
        rounded = [f"{n / 1e6:.0f} million" if n >= 1e7 else f"{n:,}" for n in (size[0] * size[1], most)]
        has, may = rounded if rounded[0] != rounded[1] else (f"{n:,}" for n in (size[0] * size[1], most))
        what = f"has {has} pixels, more than the {may} allowed"
        do = f"allow more with --max-pixels or {ALLOWANCE} if you trust it, or cut it into parts"
        raise TooLargeError(what, where, do)


def _demand_blocks(size: tuple[int, int], data: bytes) -> None:
    """By Huffman's codes a block of 8 x 8 pixels costs a bit at least; libjpeg takes missing ones for grey."""
    arithmetic = any(marker in data for marker in (b"\xff\xc9", b"\xff\xca"))
    if size[0] * size[1] > len(data) * 8 * 64 and not arithmetic:
        raise ValueError(f"{len(data)} bytes cannot hold {size[0]} x {size[1]} pixels")


def _demand_one(opened: ImageFile, kind: _Kind, frames: int, where: str) -> None:
    """Which of several pictures is meant cannot be told; a TIFF file's smaller versions of the first are none."""
    if frames <= 1 or kind.name == "JPEG":
        return
    if kind.name != "TIFF":
        raise QartsrError("is animated", where, "extract its frames first")
    tiff, pages = opened, 1
    for page in range(1, frames):
        tiff.seek(page)
        pages += not (tiff.tag_v2.get(254, 0) & 1)  # type: ignore[attr-defined]
    tiff.seek(0)
    if pages > 1:
        raise QartsrError(f"has {pages} pages", where, "extract them first")
    opened._size = opened._tile_size  # type: ignore[attr-defined]


def _info(opened: ImageFile, parts: png.Parts | None, notes: list[str]) -> metadata.Info:
    if parts is not None:
        return metadata.of_png(parts, notes)
    if isinstance(opened, TiffImageFile):
        return metadata.of_tiff(opened, notes)
    info = metadata.of_pillow(opened.info, notes)
    if isinstance(opened, JpegImageFile) and opened.info.get("jfif_unit") not in (1, 2):
        info.pop("dpi", None)  # Pillow's own guess, where the file says nothing
    return info


def _wide(opened: ImageFile, again: Callable[[], ImageFile], notes: list[str]) -> Wide | None:
    wide = read_wide(opened, again)
    if wide is None:
        notes.append(f"16 bits per channel are read as 8, as always with {opened.mode}")
    return wide


def _turned(wide: Wide, turn: int) -> Wide:
    """As Pillow's transpositions."""
    if turn in (5, 6, 7, 8):
        wide = wide.transpose(1, 0, 2)
    across, down = turn in (2, 3, 6, 7), turn in (3, 4, 7, 8)
    return np.ascontiguousarray(wide[:: -1 if down else 1, :: -1 if across else 1])
