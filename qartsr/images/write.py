"""Pictures out: PNG, JPEG, WebP, TIFF and AVIF, with what is kept of the metadata and 16 bits where the format can."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from qartsr.errors import QartsrError
from qartsr.files import replacing
from qartsr.images import exif as exif_block
from qartsr.images import png
from qartsr.images.icc import profile_of
from qartsr.images.metadata import DIRECTORIES, LOOK, SAID, TEXTS, TURN, UNREADABLE, WORDS, Info, kept
from qartsr.images.picture import Picture, Wide, opaque


class _Format(NamedTuple):
    longest: int
    """pixels of the longest side it can hold"""
    wide: bool
    """whether it holds 16 bits per channel"""
    options: Mapping[str, Any]


_FORMATS = {
    "PNG": _Format((1 << 31) - 1, True, {}),
    "JPEG": _Format(65500, False, {"quality": 95, "subsampling": 0}),
    "WEBP": _Format(16383, False, {"lossless": True, "exact": True}),
    "TIFF": _Format((1 << 31) - 1, True, {}),
    "AVIF": _Format(16384, False, {"quality": 95, "subsampling": "4:4:4"}),
}
WRITABLE = {
    **{".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".jif": "JPEG"},
    **{".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".avif": "AVIF"},
}
"""Format by the end of a file's name."""
_STRIP = 1 << 20
_GREY = ("JPEG", "TIFF")
"""Formats that have one channel for grey, which a profile must be of too; TIFF has three beside 16 bits of alpha."""
_CANNOT = (*UNREADABLE, ArithmeticError)


def known(name: str) -> str | None:
    """The format that a suffix, or Pillow, calls ``name``; None for one that is not written here."""
    return WRITABLE.get(name.lower(), name.upper() if name.upper() in _FORMATS else None)


def target_name(name: str, suffix: str = "", form: str | None = None) -> str:
    """The name that a file gets in another folder: its own, with ``.png`` in the place of what is only read.

    ``suffix`` follows the stem; ``form`` is an ending without its dot, for example ``webp``, in place of its own.
    """
    path = Path(name)
    if form is None and not suffix and path.suffix.lower() in WRITABLE:
        return name
    ending = f".{form}" if form else path.suffix if path.suffix.lower() in WRITABLE else ".png"
    return f"{path.stem}{suffix}{ending}"


def demand_format(path: Path) -> str:
    """The format that the end of a file's name stands for. Raises QartsrError for none."""
    kind = WRITABLE.get(path.suffix.lower())
    if kind is None:
        what = "has no suffix of a format that is written here"
        raise QartsrError(what, str(path), f"end it in {', '.join(WRITABLE)}")
    return kind


def check_target(path: Path, image: Image.Image, scale: float = 1) -> None:
    """Raise QartsrError when ``path`` could not hold ``image``, ``scale`` times as wide and high.

    That is an unknown suffix, JPEG for an image that is transparent somewhere, a side that is too long for the format
    and a name that is too long for the folder.
    """
    kind = demand_format(path)
    if kind == "JPEG" and not opaque(image):
        raise QartsrError("JPEG cannot hold the transparency of this image", str(path), "write .png or .webp")
    if scale * max(image.size) > _FORMATS[kind].longest:
        size = f"{round(scale * image.width)}x{round(scale * image.height)}"
        raise QartsrError(f"{kind} cannot hold {size} pixels", str(path), "write .png")
    if len(os.fsencode(path.name)) > 255:
        raise QartsrError("its name has more than 255 bytes", str(path), "choose a shorter one")


def encode_png(image: Image.Image, like: Image.Image | None = None, strip: bool = False) -> bytes:
    """The bytes of a PNG file, with the metadata of ``like`` (default: of the image) unless ``strip``."""
    return encode(_with(image, like, strip), "PNG")[0]


def write_image(
    path: Path,
    image: Image.Image,
    like: Image.Image | None = None,
    strip: bool = False,
    quality: int | None = None,
) -> tuple[str, ...]:
    """Write atomically in the format of the suffix; PNG, WebP and TIFF are lossless. Returns what was lost, in words.

    With the metadata of ``like`` (default: of the image) unless ``strip``. ``quality``: see :func:`encode_like`. Raises
    QartsrError, see :func:`check_target`.
    """
    check_target(path, image)
    data, notes = encode_like(path.suffix, _with(image, like, strip), False, quality)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return notes


def encode_like(
    suffix: str, image: Image.Image, strip: bool = False, quality: int | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of a file whose name ends in ``suffix``, and what was lost.

    ``quality``, 1 to 100, is JPEG's, AVIF's and WebP's, which is lossless without; the others have none.
    """
    kind = WRITABLE[suffix.lower()]
    options = _qualities(quality).get(kind, {}) if quality else {}
    return encode(_with(image, None, strip), kind, **options)


def _qualities(quality: int) -> dict[str, dict[str, Any]]:
    fine = quality >= 90
    return {
        "JPEG": {"quality": quality, "subsampling": 0 if fine else 2},
        "AVIF": {"quality": quality, "subsampling": "4:4:4" if fine else "4:2:0"},
        "WEBP": {"quality": quality, "lossless": False, "exact": False},
    }


def _with(image: Image.Image, like: Image.Image | None, strip: bool) -> Picture:
    wide = image.wide if isinstance(image, Picture) else None
    return Picture.of(image, {} if strip else (like or image).info, wide)


def encode(image: Image.Image, kind: str, **options: Any) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of a file of format ``kind``, and what it cannot hold. ``options`` go to Pillow's encoder."""
    form, info, notes = _FORMATS[kind], kept(image.info), list[str]()
    wide = image.still_wide() if isinstance(image, Picture) else None
    if wide is not None and (options or not form.wide):
        wide = None
        notes.append(f"16 bits per channel become 8, which is what {kind} is written with; PNG and TIFF keep them")
    if kind != "PNG":
        _translate(info, image.mode in ("L", "LA") and kind in _GREY and (wide is None or image.mode == "L"))
    if kind != "PNG" and (lost := [name.decode() for name, _ in info.get("png", ()) if name in (*LOOK, *TEXTS)]):
        notes.append(f"{', '.join(dict.fromkeys(lost))} of PNG left out, which {kind} cannot hold")
    if kind == "PNG":
        _say_lost(kind, info, notes, "iptc")
        data = _png(image, wide, info, options)
    elif kind == "TIFF" and not options:
        data = _tiff(image, wide, info, notes)
    else:
        plain = image.convert(image.mode.removesuffix("A")) if kind == "JPEG" and image.mode.endswith("A") else image
        data = _pillow(plain, kind, {**form.options, **_held(kind, info, notes), **options})
    return data, tuple(notes)


def _translate(info: Info, grey: bool) -> None:
    """PNG's gamma and chromaticities become a profile, where there is none, and no longer are themselves."""
    chunks = info.get("png", ())
    made = None if "icc_profile" in info else profile_of(chunks, grey)
    if made is not None:
        info["icc_profile"] = made
    if "icc_profile" in info or not any(name == b"cICP" for name, _ in chunks):  # else they say no more than sRGB
        info["png"] = tuple(chunk for chunk in chunks if chunk[0] not in (b"gAMA", b"cHRM"))


def _pillow(image: Image.Image, kind: str, options: Mapping[str, Any]) -> bytes:
    bare, buffer = image if not image.info else Image.Image._new(image, image.im), io.BytesIO()
    bare.info = {}
    Image.Image.save(bare, buffer, format=kind, **options)
    return buffer.getvalue()


def _held(kind: str, info: Info, notes: list[str]) -> dict[str, Any]:
    """What ``kind`` can hold of the metadata, tried on a small image: one oddity must not cost the picture."""
    given: Info = {key: info[key] for key in ("icc_profile", "exif", "xmp") if key in info}
    if kind == "JPEG":
        given |= {key: info[key] for key in ("comment", "iptc") if key in info}
    else:
        _say_lost(kind, info, notes, "comment", "iptc")
    if kind in ("WEBP", "AVIF"):
        if "dpi" in info and "exif" not in info:  # these have no other place for it
            given["exif"] = _resolution(info["dpi"])
    elif "dpi" in info:
        given["dpi"] = info["dpi"]
    held: Info = {}
    for key, value in given.items():
        try:
            option = {"extra": _photoshop(value)} if key == "iptc" else {key: value}
            _pillow(Image.new("RGB", (8, 8)), kind, option)
            held |= option
        except _CANNOT as error:
            notes.append(f"its {SAID[key]} left out, which {kind} cannot hold ({error})")
    return held


def _say_lost(kind: str, info: Info, notes: list[str], *keys: str) -> None:
    notes += [f"its {SAID[key]} left out, which {kind} cannot hold" for key in keys if key in info]


def _photoshop(iptc: bytes) -> bytes:
    """IPTC records as JPEG's segment APP13. Raises ValueError where they are too long for one."""
    block = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0" + struct.pack(">I", len(iptc)) + iptc + bytes(len(iptc) % 2)
    if len(block) > 65533:
        raise ValueError("it is longer than a segment")
    return b"\xff\xed" + struct.pack(">H", 2 + len(block)) + block


def _resolution(dpi: tuple[float, float]) -> bytes:
    exif = Image.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = *dpi, 2
    return exif.tobytes()


def _png(image: Image.Image, wide: Wide | None, info: Info, options: Mapping[str, Any]) -> bytes:
    bare = png.encode(wide) if wide is not None else _pillow(image, "PNG", options)
    chunks = list[png.Chunk]()
    if "icc_profile" in info and "icc_profile" not in options:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(info["icc_profile"])))
    chunks += [(name, data) for name, data in info.get("png", ()) if name != b"sRGB" or "icc_profile" not in info]
    if "dpi" in info and "dpi" not in options and not any(name == b"pHYs" for name, _ in chunks):
        metre = (round(side / 0.0254) for side in info["dpi"])
        chunks.append((b"pHYs", struct.pack(">IIB", *metre, 1)))
    if "exif" in info and "exif" not in options:
        chunks.append((b"eXIf", info["exif"].removeprefix(exif_block.PREFIX)))
    if "xmp" in info:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + info["xmp"]))
    if "comment" in info:
        words = info["comment"].replace(b"\0", b"").decode(errors="replace").encode()
        chunks.append((b"iTXt", b"Comment\0\0\0\0\0" + words))
    return png.with_chunks(bare, chunks)


def _tiff(image: Image.Image, wide: Wide | None, info: Info, notes: list[str]) -> bytes:
    """Deflate with horizontal prediction (TIFF 6.0, section 14): the same for 8 and 16 bits, which Pillow lacks."""
    pixels = np.asarray(image) if wide is None else wide
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if wide is not None and pixels.shape[2] == 2:  # 16-bit grey with alpha is what few read, Pillow among the others
        pixels = pixels[..., [0, 0, 0, 1]]
    height, width, channels = pixels.shape
    pixels = pixels.astype(pixels.dtype.newbyteorder("<"))
    rows = max(1, _STRIP // (width * channels * pixels.itemsize))
    strips = [zlib.compress(_predicted(pixels[top : top + rows])) for top in range(0, height, rows)]
    sizes = [len(strip) for strip in strips]
    if sum(sizes) > (1 << 32) - (1 << 20):
        raise QartsrError("TIFF cannot hold more than 4 GB", "image", "write .png")
    form = {
        **{256: width, 257: height, 258: (8 * pixels.itemsize,) * channels, 259: 8, 262: 2 if channels > 2 else 1},
        **{273: tuple(np.cumsum([0, *sizes[:-1]]).tolist()), 277: channels, 278: rows, 279: tuple(sizes), 284: 1},
        **{317: 2, **({338: 2} if channels in (2, 4) else {})},
    }
    for told in (info, {**info, "exif": b""}, Info()):
        directory = ImageFileDirectory_v2()
        try:
            for tag, value in (_tags(told) | form).items():
                directory[tag] = value
            buffer = io.BytesIO()
            directory.save(buffer)
            return buffer.getvalue() + b"".join(strips)
        except _CANNOT as error:
            notes.append(f"metadata left out, which TIFF cannot hold ({error})")
    raise AssertionError("unreachable")


def _predicted(pixels: np.ndarray[Any, Any]) -> bytes:
    result = pixels.copy()
    result[:, 1:] -= pixels[:, :-1]
    return result.tobytes()


def _tags(info: Info) -> dict[int, Any]:
    tags: dict[int, Any] = {}
    if info.get("exif"):
        exif = Image.Exif()
        exif.load(info["exif"])
        tags |= {tag: exif[tag] for tag in (*WORDS, TURN) if tag in exif}
        tags |= {tag: inner for tag in DIRECTORIES if (inner := exif.get_ifd(tag))}
    if "dpi" in info:
        tags |= {282: info["dpi"][0], 283: info["dpi"][1], 296: 2}
    if "comment" in info:
        tags.setdefault(270, info["comment"])
    places = ((34675, "icc_profile"), (700, "xmp"), (33723, "iptc"))
    return tags | {tag: info[key] for tag, key in places if key in info}
