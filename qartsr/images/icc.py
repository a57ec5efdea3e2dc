"""PNG's gamma and chromaticities as an ICC profile, for formats that have no other place for them.

Version 2.1, monitor, matrix and curve (ICC.1:2001-04, sections 6.3.1 and 6.4); white is adapted to D50 by the Bradford
transform, annex E.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np

from qartsr.images.png import Chunk

_SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""White, red, green, blue, x and y each, in the order of cHRM."""
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_USUAL = 0.45455
"""gAMA of what is meant for an ordinary screen."""


def profile_of(chunks: Iterable[Chunk], grey: bool) -> bytes | None:
    """The profile that gAMA and cHRM describe; None where they say nothing that sRGB does not, or cannot be meant.

    sRGB and cICP, which take precedence over both (PNG, section 11.3.2), are left to whoever knows them.
    """
    found = dict(chunks)
    if b"sRGB" in found or b"cICP" in found:
        return None
    gamma = struct.unpack(">I", found[b"gAMA"])[0] / 1e5 if len(found.get(b"gAMA", b"")) == 4 else _USUAL
    told = struct.unpack(">8I", found[b"cHRM"]) if len(found.get(b"cHRM", b"")) == 32 else ()
    points = tuple(value / 1e5 for value in told) or _SRGB
    usual = abs(gamma - _USUAL) < 0.005 and max(abs(a - b) for a, b in zip(points, _SRGB, strict=True)) < 0.002
    if usual or not 0.01 <= gamma <= 100 or min(points[1::2]) <= 0:
        return None
    try:
        return _profile(1 / gamma, None if grey else _primaries(points))
    except np.linalg.LinAlgError:
        return None


def _primaries(points: tuple[float, ...]) -> np.ndarray:
    """(3, 3): a column of XYZ for each of red, green and blue, seen under D50."""
    white, *colours = ([x / y, 1.0, (1 - x - y) / y] for x, y in zip(points[0::2], points[1::2], strict=True))
    columns = np.array(colours).T
    scaled = columns * np.linalg.solve(columns, np.array(white))
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ np.array(white))
    adapted: np.ndarray = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ scaled
    return adapted


def _profile(exponent: float, columns: np.ndarray | None) -> bytes:
    curve = b"curv" + bytes(4) + struct.pack(">IHxx", 1, min(round(exponent * 256), 65535))
    words = b"PNG gamma and chromaticities\0"
    described = b"desc" + bytes(4) + struct.pack(">I", len(words)) + words + bytes(78)
    tags = [(b"desc", described), (b"cprt", b"text" + bytes(4) + b"none\0"), (b"wtpt", _xyz(_D50))]
    if columns is None:
        tags.append((b"kTRC", curve))
    else:
        tags += [(name, _xyz(column)) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True)]
        tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags:
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    space = b"GRAY" if columns is None else b"RGB "
    head = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02100000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(_D50)[8:] + bytes(48)
    return head + table + body


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(float(value) * 65536) for value in values))
