"""The chunks of a PNG file (W3C PNG, third edition): pixels apart from all else, and 16 bits per channel out.

What is not pixels must not decide over pixels, so Pillow is given the critical chunks and transparency alone. It has
no 16-bit colours to write either.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
Chunk = tuple[bytes, bytes]
"""(name, content)"""
MOST = 64 << 20
"""Bytes that a compressed profile or text may have when unpacked."""
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_HEADER = 33
"""Bytes of the signature and IHDR."""
_BAND = 1 << 24
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Left and top of each pass of an interlaced picture, and its steps to the right and down."""


class Parts(NamedTuple):
    """A file taken apart."""

    pixels: bytes
    """a PNG file of nothing else"""
    others: tuple[Chunk, ...]
    """in their order; those with a wrong checksum are left out"""
    frames: int
    """1 unless animated"""
    bits: int
    """per channel, before a palette"""
    damaged: bool
    """whether some of the others, or a transparency that does not fit, were left out"""


def parse(data: bytes) -> Parts:
    """Take a file apart. It may be damaged or end early: then so do the pixels, and their decoder complains."""
    pixels, others, frames, damaged = [SIGNATURE], list[Chunk](), 1, False
    for name, content, whole, sound in _chunks(data):
        if name in _PIXELS and (name != b"tRNS" or (sound and _transparent(data, content))):
            pixels.append(whole)
        elif not sound or name == b"tRNS":
            damaged = True
        elif name == b"acTL" and len(content) == 8:
            frames = struct.unpack(">I", content[:4])[0]
        elif name not in (b"fcTL", b"fdAT"):
            others.append((name, content))
    return Parts(b"".join(pixels), tuple(others), frames, data[24] if len(data) > 24 else 0, damaged)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes, bool]]:
    """Name, content, the whole chunk and whether its checksum is right."""
    place = len(SIGNATURE)
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        whole = data[place : place + 12 + length]
        name, content = whole[4:8], whole[8 : 8 + length]
        yield name, content, whole, len(whole) == 12 + length and whole[-4:] == _checksum(name + content)
        if name == b"IEND":
            return
        place += 12 + length


def _transparent(data: bytes, content: bytes) -> bool:
    """Whether a tRNS chunk fits the kind of picture: a number, three, or up to 256 bytes; else it is left out."""
    fitting = {0: range(2, 3), 2: range(6, 7), 3: range(1, 257)}
    return len(content) in fitting.get(data[25] if len(data) > 25 else -1, ())


def _checksum(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


def demand_rows(pixels: bytes) -> None:
    """Pixels for all of the picture, whose file may claim any size: Pillow takes the rows that are missing for black.

    ``pixels``: the PNG file. Raises ValueError. Unpacked bytes are counted and never held together.
    """
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", pixels, 16)
    depth = bits * {2: 3, 4: 2, 6: 4}.get(colour, 1)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-((left - width) // across), -((top - height) // down)) for left, top, across, down in passes]
    left = sum(rows * (1 + (columns * depth + 7) // 8) for columns, rows in sizes if columns > 0)
    unpack = zlib.decompressobj()
    for name, content, _, _ in _chunks(pixels):
        while name == b"IDAT" and content and left > 0 and not unpack.eof:
            left -= len(unpack.decompress(content, _BAND))
            content = unpack.unconsumed_tail
    if left > 0:
        raise ValueError(f"rows are missing: {left} bytes of pixels less than {width} x {height} need")


def packed(name: bytes, content: bytes) -> bytes:
    """The bytes of a chunk."""
    return struct.pack(">I", len(content)) + name + content + _checksum(name + content)


def with_chunks(file: bytes, chunks: Iterable[Chunk]) -> bytes:
    """``file`` with ``chunks`` behind its header, where each of those we write may stand."""
    return file[:_HEADER] + b"".join(packed(*chunk) for chunk in chunks) + file[_HEADER:]


def unpacked(data: bytes) -> bytes:
    """What zlib compressed. Raises ValueError for damage, and above MOST bytes."""
    unpack = zlib.decompressobj()
    try:
        result = unpack.decompress(data, MOST)
    except zlib.error as error:
        raise ValueError("it is damaged") from error
    if not unpack.eof:
        raise ValueError("it is cut off" if len(result) < MOST else f"it has more than {MOST >> 20} MiB")
    return result


def encode(pixels: np.ndarray[Any, Any]) -> bytes:
    """A PNG file of uint16 ``pixels`` (H, W, C), C from 1 to 4, filtered by the row above (type 2)."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, (0, 4, 2, 6)[channels - 1], 0, 0, 0)
    pack, parts = zlib.compressobj(6), list[bytes]()
    above = np.zeros(width * channels * 2, np.uint8)
    rows = max(1, _BAND // len(above))
    for top in range(0, height, rows):
        band = pixels[top : top + rows].astype(">u2").reshape(-1, width * channels).view(np.uint8)
        filtered = np.full((len(band), band.shape[1] + 1), 2, np.uint8)
        filtered[:, 1:] = band - np.concatenate([above[None], band[:-1]])
        above = band[-1]
        parts.append(pack.compress(filtered.tobytes()))
    body: Sequence[bytes] = [*parts, pack.flush()]
    chunks = [packed(b"IDAT", part) for part in body if part]
    return SIGNATURE + packed(b"IHDR", header) + b"".join(chunks) + packed(b"IEND", b"")
