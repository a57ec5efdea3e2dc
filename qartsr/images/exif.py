"""EXIF as bytes, mended in place: whatever else is in it, and however odd, stays as the camera wrote it.

A directory (CIPA DC-008, chapter 4.6.2) is a count, 12 bytes for each entry (tag, type, count, value or its place) and
the place of the next directory. Nothing is moved, so places that point elsewhere in the block stay true.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

PREFIX = b"Exif\0\0"
_ORIENTATION, _EXIF = 0x0112, 0x8769
_WIDTHS, _HEIGHTS = (0x0100, 0xA002), (0x0101, 0xA003)
_THUMBNAIL, _THUMBNAIL_BYTES = 0x0201, 0x0202
_SHORT, _LONG = 3, 4
_SIZE = 12


class _Block:
    """The TIFF structure in an EXIF block, without its prefix."""

    def __init__(self, exif: bytes) -> None:
        self.data = bytearray(exif.removeprefix(PREFIX))
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(self.data[:4]))
        if order is None:
            raise ValueError("it does not begin as EXIF does")
        self._order = order
        self.first = self.number(4, "I")
        self.count(self.first)

    def number(self, place: int, kind: str) -> int:
        """A whole number of ``struct``'s ``kind``. Raises ValueError beyond the end."""
        try:
            return int(struct.unpack_from(self._order + kind, self.data, place)[0])
        except struct.error as error:
            raise ValueError("it ends too early") from error

    def set(self, place: int, kind: str, value: int) -> None:
        """Write over what is there."""
        struct.pack_into(self._order + kind, self.data, place, value)

    def count(self, directory: int) -> int:
        """How many entries, all of them within the block. Raises ValueError."""
        count = self.number(directory, "H")
        if directory < 8 or directory + 2 + _SIZE * count > len(self.data):
            raise ValueError("a directory of it ends too early")
        return count

    def entries(self, directory: int) -> Iterator[tuple[int, int]]:
        """(tag, place) of every entry. Raises ValueError."""
        for index in range(self.count(directory)):
            place = directory + 2 + _SIZE * index
            yield self.number(place, "H"), place

    def value(self, place: int) -> int | None:
        """The value of an entry that is one SHORT or LONG."""
        kind, count = self.number(place + 2, "H"), self.number(place + 4, "I")
        if count != 1 or kind not in (_SHORT, _LONG):
            return None
        return self.number(place + 8, "H" if kind == _SHORT else "I")

    def replace(self, place: int, value: int) -> None:
        """Make an entry one LONG, or SHORT where it was one and has room."""
        if self.number(place + 2, "H") == _SHORT and value < 1 << 16:
            self.set(place + 8, "H", value)
        else:
            self.set(place + 2, "H", _LONG)
            self.set(place + 8, "I", value)


def orientation(exif: bytes) -> int:
    """1 to 8, 1 where it says nothing. Raises ValueError for what is no EXIF."""
    block = _Block(exif)
    found = [block.value(place) for tag, place in block.entries(block.first) if tag == _ORIENTATION]
    value = found[0] if found else 1
    return value if value is not None and 1 <= value <= 8 else 1


def described(exif: bytes, size: tuple[int, int] | None = None, upright: bool = False) -> bytes:
    """``exif`` without its thumbnail, with the prefix that JPEG wants.

    ``size``: width and height to put in the place of those it names; ``upright``: orientation 1 in the place of
    another. Raises ValueError for what is no EXIF.
    """
    block = _Block(exif)
    _drop_thumbnail(block)
    for directory in _directories(block):
        for tag, place in block.entries(directory):
            if tag == _ORIENTATION and upright:
                block.replace(place, 1)
            elif size and tag in _WIDTHS + _HEIGHTS and block.value(place) is not None:
                block.replace(place, size[tag in _HEIGHTS])
    return PREFIX + bytes(block.data)


def _directories(block: _Block) -> list[int]:
    """The picture's own, and the camera's, if that can be read."""
    found = [block.first]
    for tag, place in block.entries(block.first):
        inner = block.value(place) if tag == _EXIF else None
        try:
            found += [inner] if inner is not None and block.count(inner) else []
        except ValueError:
            continue
    return found


def _drop_thumbnail(block: _Block) -> None:
    """Let the second directory be none; its picture is cut off the end, or blackened where something follows it."""
    link = block.first + 2 + _SIZE * block.count(block.first)
    if link + 4 > len(block.data):
        return
    second = block.number(link, "I")
    block.set(link, "I", 0)
    try:
        values = {tag: block.value(place) for tag, place in block.entries(second)} if second else {}
    except ValueError:
        return
    start, size = values.get(_THUMBNAIL), values.get(_THUMBNAIL_BYTES)
    if start and size and start + size <= len(block.data):
        block.data[start : start + size] = bytes(size)
        if start + size == len(block.data) and start >= link + 4:
            del block.data[start:]
