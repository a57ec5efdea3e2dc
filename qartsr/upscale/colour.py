"""The colour fix of a whole image that arrives in bands, so that its memory hardly grows with the image.

Doing it after the tiles are joined, on the whole image, also removes most of what tiles disagree on: a tile's own
brightness is a low frequency, and low frequencies come from the input. The fixes are those of
:mod:`qartsr.models.colour_fix`, which trains with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ROWS = 256
RADII = (1, 2, 4, 8, 16)
"""Of the wavelet fix: five a-trous blurs (OSEDiff, StableSR)."""
REACH = sum(RADII)
"""Rows that the wavelet fix looks at beyond a pixel."""
PEAK = 32767
"""1.0 in the 16 bits in which the AdaIN fix keeps the image: a step is 1/257 of a grey level."""


def finish(kind: str, bands: Iterable[Floats], lq: NDArray[Any]) -> NDArray[Any]:
    """Colour fix, clamp, round: ``bands`` of (3, rows, W) float in [-1, 1] and ``lq`` (3, H, W) -> (3, H, W).

    uint8 where ``lq`` is, uint16 where it is float. Equals the fix of the whole image up to fp32 rounding, with AdaIN
    up to 1/500 of a grey level.
    """
    wide = bool(np.issubdtype(lq.dtype, np.floating))
    half, top = np.float32(32767.5 if wide else 127.5), 0
    result = np.empty(lq.shape, np.uint16 if wide else np.uint8)
    for fixed in _FIXES[kind](bands, lq):
        rows = slice(top, top + fixed.shape[1])
        result[:, rows] = np.rint(np.clip(fixed, -1, 1) * half + half)
        top = rows.stop
    return result


def to_unit(image: NDArray[Any]) -> Floats:
    """0 to 255 -> [-1, 1]."""
    found: Floats = image.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return found


def low_frequencies(x: Floats) -> Floats:
    """(C, H, W): blurs with the kernel (1, 2, 1) / 4 along both axes, at every radius, borders repeated."""
    for radius in RADII:
        for axis in (1, 2):
            margins = [(radius, radius) if each == axis else (0, 0) for each in range(3)]
            padded = np.pad(x, margins, mode="edge")
            first, last = (padded[:, part] if axis == 1 else padded[:, :, part] for part in _ends(radius))
            total = first + last
            total += x
            total += x
            total *= np.float32(0.25)
            x = total
    return x


def _ends(radius: int) -> tuple[slice, slice]:
    return slice(None, -2 * radius), slice(2 * radius, None)


def _none(bands: Iterable[Floats], lq: NDArray[Any]) -> Iterator[Floats]:
    yield from bands


def _wavelet(bands: Iterable[Floats], lq: NDArray[Any]) -> Iterator[Floats]:
    """High frequencies of the image, low ones of ``lq``; blurring is linear, so the difference is blurred once.

    A row is fixed when the rows within reach below it are known, and kept while rows below need it.
    """
    known, first, done = np.empty((3, 0, lq.shape[2]), np.float32), 0, 0
    for band in bands:
        known = np.concatenate([known, band], axis=1)
        end = first + known.shape[1]
        ready = end if end == lq.shape[1] else end - REACH
        if ready <= done:
            continue
        fixed = known + low_frequencies(to_unit(lq[:, first:end]) - known)
        yield fixed[:, done - first : ready - first]
        done, kept = ready, max(first, ready - REACH)
        known, first = known[:, kept - first :], kept


def _adain(bands: Iterable[Floats], lq: NDArray[Any]) -> Iterator[Floats]:
    """Whole-image moments first (float64), then one affine map."""
    image, ours, theirs, top = np.empty(lq.shape, np.int16), _Moments(), _Moments(), 0
    for band in bands:
        rows = slice(top, top + band.shape[1])
        image[:, rows] = np.rint(band * np.float32(PEAK))
        ours.add(band)
        theirs.add(to_unit(lq[:, rows]))
        top = rows.stop
    gain = theirs.std / ours.std
    shift = theirs.mean - ours.mean * gain
    for top in range(0, lq.shape[1], ROWS):
        yield (image[:, top : top + ROWS] * (gain / PEAK) + shift).astype(np.float32)


class _Moments:
    """Mean and standard deviation per channel, (3, 1, 1) float64, epsilon as in :mod:`qartsr.models.colour_fix`."""

    def __init__(self) -> None:
        self._count, self._total, self._squares = 0, np.zeros(3), np.zeros(3)

    def add(self, strip: Floats) -> None:
        values = strip.astype(np.float64).reshape(3, -1)
        self._count += values.shape[1]
        self._total += values.sum(1)
        self._squares += np.square(values).sum(1)

    @property
    def mean(self) -> NDArray[np.float64]:
        return (self._total / self._count)[:, None, None]

    @property
    def std(self) -> NDArray[np.float64]:
        variance = np.maximum(self._squares - np.square(self._total) / self._count, 0) / (self._count - 1)
        return np.sqrt(variance + 4e-5)[:, None, None]


_FIXES: dict[str, Callable[[Iterable[Floats], NDArray[Any]], Iterator[Floats]]] = {
    "none": _none,
    "wavelet": _wavelet,
    "adain": _adain,
}
