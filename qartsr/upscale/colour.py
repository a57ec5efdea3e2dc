"""The colour fix of a whole image that arrives in bands, so that its memory hardly grows with the image.

Doing it after the tiles are joined, on the whole image, also removes most of what tiles disagree on: a tile's own
brightness is a low frequency, and low frequencies come from the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from qartsr.data.pairs import to_unit
from qartsr.models import align
from qartsr.models.align import LEVELS

ROWS = 256
REACH = 2**LEVELS - 1
"""Rows that the wavelet fix looks at beyond a pixel: radii 1 + 2 + 4 + ..., one per level."""
PEAK = 32767
"""1.0 in the 16 bits in which the AdaIN fix keeps the image: a step is 1/257 of a grey level."""


def finish(kind: str, bands: Iterable[Tensor], lq: Tensor) -> Tensor:
    """Colour fix, clamp, round: ``bands`` of (3, rows, W) float in [-1, 1] and ``lq`` (3, H, W) -> (3, H, W).

    uint8 where ``lq`` is, uint16 where it is float. Equals ``align(kind, image, lq)`` of the whole image up to fp32
    rounding, with AdaIN up to 1/500 of a grey level.
    """
    wide = lq.is_floating_point()
    half, top = (32767.5 if wide else 127.5), 0
    result = torch.empty_like(lq, dtype=torch.uint16 if wide else torch.uint8)
    for fixed in _FIXES[kind](bands, lq):
        rows = slice(top, top + fixed.shape[1])
        result[:, rows] = (fixed.clamp(-1, 1) * half + half).round().to(result.dtype)
        top = rows.stop
    return result


def _none(bands: Iterable[Tensor], lq: Tensor) -> Iterator[Tensor]:
    yield from bands


def _wavelet(bands: Iterable[Tensor], lq: Tensor) -> Iterator[Tensor]:
    """A row is fixed when the rows within reach below it are known, and kept while rows below need it."""
    known, first, done = torch.empty(3, 0, lq.shape[2]), 0, 0
    for band in bands:
        known = torch.cat([known, band], dim=1)
        end = first + known.shape[1]
        ready = end if end == lq.shape[1] else end - REACH
        if ready <= done:
            continue
        fixed = align("wavelet", known[None], _unit(lq, slice(first, end))[None])[0]
        yield fixed[:, done - first : ready - first]
        done, kept = ready, max(first, ready - REACH)
        known, first = known[:, kept - first :], kept


def _adain(bands: Iterable[Tensor], lq: Tensor) -> Iterator[Tensor]:
    """Whole-image moments first (float64), then one affine map."""
    image, ours, theirs, top = torch.empty(lq.shape, dtype=torch.int16), _Moments(), _Moments(), 0
    for band in bands:
        rows = slice(top, top + band.shape[1])
        image[:, rows] = (band * PEAK).round().to(torch.int16)
        ours.add(band)
        theirs.add(_unit(lq, rows))
        top = rows.stop
    gain = theirs.std / ours.std
    shift = theirs.mean - ours.mean * gain
    for top in range(0, lq.shape[1], ROWS):
        yield (image[:, top : top + ROWS] * (gain / PEAK) + shift).float()


class _Moments:
    """Mean and standard deviation per channel, (3, 1, 1) float64, with the epsilon of :mod:`qartsr.models.align`."""

    def __init__(self) -> None:
        self._count, self._total, self._squares = 0, torch.zeros(3).double(), torch.zeros(3).double()

    def add(self, strip: Tensor) -> None:
        values = strip.double().flatten(1)
        self._count += values.shape[1]
        self._total += values.sum(1)
        self._squares += values.square().sum(1)

    @property
    def mean(self) -> Tensor:
        return (self._total / self._count)[:, None, None]

    @property
    def std(self) -> Tensor:
        variance = (self._squares - self._total.square() / self._count).clamp_min(0) / (self._count - 1)
        return (variance + 4e-5).sqrt()[:, None, None]


def _unit(lq: Tensor, rows: slice) -> Tensor:
    return to_unit(lq[:, rows].contiguous())


_FIXES: dict[str, Callable[[Iterable[Tensor], Tensor], Iterator[Tensor]]] = {
    "none": _none,
    "wavelet": _wavelet,
    "adain": _adain,
}
