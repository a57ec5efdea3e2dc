"""What a file says beside its pixels, as the entries of ``Image.info`` that are kept.

``icc_profile``, ``exif``, ``xmp``, ``iptc`` (IIM records) and ``comment`` (bytes), ``dpi`` (two numbers) and ``png``,
a tuple of PNG chunks: gamma, chromaticities, code points and mastering display, resolution and texts, as they are in
the file. Whatever of it cannot be read costs a note, never the picture.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from qartsr.images import exif as exif_block
from qartsr.images.png import Chunk, Parts, unpacked

Info = dict[str, Any]
KEYS = ("icc_profile", "exif", "xmp", "iptc", "comment", "dpi", "png")
LOOK = (b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI")
"""Chunks that change what the numbers of pixels look like."""
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_RAW = (*LOOK, b"sRGB", b"pHYs", *TEXTS)
_XMP, _XMP_TIFF, _ICC_TIFF, _IPTC_TIFF = b"XML:com.adobe.xmp", 700, 34675, 33723
_IPTC_PHOTOSHOP = 0x0404
_ORIENTATION = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>)\s*)[2-8]""")
WORDS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
"""TIFF tags that describe the picture: description, make, model, software, date, artist, copyright."""
DIRECTORIES = (0x8769, 0x8825)
"""TIFF tags of the camera's and the place's directories."""
TURN = 0x0112
UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error, SyntaxError, EOFError, OSError)
"""What Pillow raises for odd metadata, ZeroDivisionError and OverflowError being ArithmeticErrors."""


def of_png(parts: Parts, notes: list[str]) -> Info:
    """From the chunks of a PNG file."""
    info: Info = {}
    if parts.damaged:
        notes.append("metadata or transparency of a wrong checksum or size is left out")
    for name, content in parts.others:
        key = {b"iCCP": "icc_profile", b"eXIf": "exif"}.get(name) or _of_text(name, content)
        if key:
            _put(info, key, lambda key=key, content=content: _PNG[key](content), notes)  # type: ignore[misc]
    info["png"] = tuple(chunk for chunk in parts.others if chunk[0] in _RAW and not _of_text(*chunk))
    for name, content in info["png"]:
        if name == b"pHYs" and len(content) == 9 and content[8] == 1:
            info["dpi"] = tuple(side * 0.0254 for side in struct.unpack(">II", content[:8]))
        if name == b"gAMA" and len(content) == 4:
            info["gamma"] = struct.unpack(">I", content)[0] / 100000
    return {key: value for key, value in info.items() if value}


def _of_text(name: bytes, content: bytes) -> str:
    """The key that a text chunk is for, if it is for one."""
    word = content.split(b"\0", 1)[0]
    if name == b"iTXt" and word == _XMP:
        return "xmp"
    return "raw exif" if name in TEXTS and word in (b"Raw profile type exif", b"Raw profile type APP1") else ""


def _profile(content: bytes) -> bytes:
    return unpacked(content.split(b"\0", 1)[1][1:])


def _international(content: bytes) -> bytes:
    _, rest = content.split(b"\0", 1)
    text = rest[2:].split(b"\0", 2)[2]
    return unpacked(text) if rest[0] else text


def _hexadecimal(content: bytes) -> bytes:
    """ImageMagick's way: a name, a length and hexadecimal digits, compressed or not."""
    text = content.split(b"\0", 1)[1]
    text = unpacked(text[1:]) if text[:1] == b"\0" else text
    return bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))


_PNG: dict[str, Callable[[bytes], bytes]] = {
    "icc_profile": _profile,
    "exif": lambda content: content,
    "xmp": _international,
    "raw exif": _hexadecimal,
}
SAID = {
    **{"icc_profile": "ICC profile", "exif": "EXIF data", "raw exif": "EXIF data", "xmp": "XMP data"},
    **{"iptc": "IPTC data", "comment": "comment", "dpi": "dpi"},
}
"""What each entry is called in a note."""


def _put(info: Info, key: str, read: Callable[[], Any], notes: list[str]) -> None:
    """Keep what ``read`` returns, if it returns; EXIF must be such that its orientation can be told."""
    try:
        value = read()
        if value and key.endswith("exif"):
            exif_block.orientation(value)
            key, value = "exif", exif_block.PREFIX + value.removeprefix(exif_block.PREFIX)
        if value:
            info.setdefault(key, value)
    except (*UNREADABLE, ArithmeticError) as error:
        notes.append(f"its {SAID[key]} cannot be read and is left out ({str(error) or type(error).__name__})")


def of_pillow(given: Mapping[Any, Any], notes: list[str]) -> Info:
    """From what Pillow found in a file of another format, or in an image somebody else opened."""
    info: Info = {}
    for key in ("icc_profile", "exif", "xmp", "iptc", "comment", "dpi"):
        if given.get(key):
            _put(info, key, lambda key=key: _plain(key, given[key]), notes)  # type: ignore[misc]
    if isinstance(resources := given.get("photoshop"), Mapping) and resources.get(_IPTC_PHOTOSHOP):
        _put(info, "iptc", lambda: bytes(resources[_IPTC_PHOTOSHOP]), notes)
    info["png"] = (*given.get("png", ()), *(() if "png" in given else _chunks(given)))
    info["gamma"] = given.get("gamma")
    return {key: value for key, value in info.items() if value}


def _plain(key: str, value: Any) -> Any:
    if key == "dpi":
        x, y = (float(side) for side in value)
        return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None
    return value.encode() if isinstance(value, str) else bytes(value)


def _records(value: Any) -> bytes:
    """IPTC of a TIFF tag, which many write as a row of LONGs."""
    return struct.pack(f"<{len(value)}I", *value) if isinstance(value, tuple) else _plain("iptc", value)


def _chunks(given: Mapping[Any, Any]) -> tuple[Chunk, ...]:
    """Gamma and chromaticities as Pillow tells them."""
    made: list[Chunk] = []
    gamma, points = given.get("gamma"), given.get("chromaticity")
    if isinstance(gamma, int | float) and 0 < gamma < 1000:
        made.append((b"gAMA", struct.pack(">I", round(gamma * 100000))))
    if isinstance(points, tuple) and len(points) == 8:
        made.append((b"cHRM", struct.pack(">8I", *(round(point * 100000) for point in points))))
    return tuple(made)


def of_tiff(opened: TiffImageFile, notes: list[str]) -> Info:
    """From the tags of a TIFF file; those that describe the picture become EXIF."""
    tags = opened.tag_v2
    info = of_pillow({"dpi": opened.info.get("dpi") if 296 in tags else None}, notes)
    _put(info, "icc_profile", lambda: tags.get(_ICC_TIFF), notes)
    _put(info, "xmp", lambda: _plain("xmp", tags[_XMP_TIFF]) if _XMP_TIFF in tags else b"", notes)
    _put(info, "iptc", lambda: _records(tags[_IPTC_TIFF]) if _IPTC_TIFF in tags else b"", notes)

    def told() -> bytes:
        found, made = opened.getexif(), Image.Exif()
        for tag in (*WORDS, TURN):
            if tag in tags:
                made[tag] = tags[tag]
        for tag in DIRECTORIES:
            if tag in tags and (inner := found.get_ifd(tag)):
                made.get_ifd(tag).update(inner)
        return made.tobytes() if len(made) or any(made.get_ifd(tag) for tag in DIRECTORIES) else b""

    _put(info, "exif", told, notes)
    return info


def turned(info: Info) -> int:
    """The orientation, 1 to 8."""
    return exif_block.orientation(info["exif"]) if "exif" in info else 1


def kept(info: Mapping[Any, Any], size: tuple[int, int] | None = None, upright: bool = False) -> Info:
    """What goes on with the picture: without thumbnail, for a ``size``, and if ``upright`` with orientation 1."""
    result = {key: value for key, value in info.items() if key in (*KEYS, "gamma") and value}
    if "exif" in result:
        try:
            result["exif"] = exif_block.described(result["exif"], size, upright)
        except ValueError:
            del result["exif"]
    if upright and "xmp" in result:
        result["xmp"] = _ORIENTATION.sub(rb"\g<1>1", result["xmp"])
    return result
