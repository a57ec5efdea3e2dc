"""The colour fix of a whole image in horizontal strips, so that its memory does not grow with the image.

Doing it after the tiles are joined, on the whole image, also removes most of what tiles disagree on: a tile's own
brightness is a low frequency, and low frequencies come from the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from qartsr.data.pairs import to_unit
from qartsr.models import align

ROWS = 256
REACH = 31
"""Rows that the wavelet fix looks at beyond a pixel: radii 1 + 2 + 4 + 8 + 16."""


def finish(kind: str, image: Tensor, lq: Tensor) -> Tensor:
    """Colour fix, clamp, round. ``image`` float (3, H, W) in [-1, 1], ``lq`` uint8 (3, H, W) -> uint8 (3, H, W).

    Equals ``align(kind, image, lq)`` of the whole image up to fp32 rounding.
    """
    result = torch.empty_like(lq)
    for rows, fixed in _FIXES[kind](image, lq):
        result[:, rows] = (fixed.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
    return result


Strips = Iterator[tuple[slice, Tensor]]


def _strips(height: int) -> Iterator[slice]:
    for top in range(0, height, ROWS):
        yield slice(top, min(top + ROWS, height))


def _local(kind: str, reach: int) -> Callable[[Tensor, Tensor], Strips]:
    """A fix that looks at most ``reach`` rows away: each strip sees that much more than it keeps."""

    def fix(image: Tensor, lq: Tensor) -> Strips:
        for rows in _strips(image.shape[1]):
            seen = slice(max(rows.start - reach, 0), rows.stop + reach)
            fixed = align(kind, image[None, :, seen], to_unit(lq[None, :, seen]))[0]
            yield rows, fixed[:, rows.start - seen.start : rows.stop - seen.start]

    return fix


def _adain(image: Tensor, lq: Tensor) -> Strips:
    """Whole-image moments first (float64), then one affine map."""
    mean, std = _moments(image[:, rows] for rows in _strips(image.shape[1]))
    target_mean, target_std = _moments(to_unit(lq[:, rows]) for rows in _strips(lq.shape[1]))
    gain = target_std / std
    for rows in _strips(image.shape[1]):
        yield rows, (image[:, rows] * gain + (target_mean - mean * gain)).float()


def _moments(strips: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel, (3, 1, 1) float64, with the epsilon of :mod:`qartsr.models.align`."""
    count, total, squares = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for strip in strips:
        values = strip.double().flatten(1)
        count += values.shape[1]
        total += values.sum(1)
        squares += values.square().sum(1)
    variance = (squares - total.square() / count).clamp_min(0) / (count - 1)
    return (total / count)[:, None, None], (variance + 4e-5).sqrt()[:, None, None]


_FIXES: dict[str, Callable[[Tensor, Tensor], Strips]] = {
    "none": _local("none", 0),
    "wavelet": _local("wavelet", REACH),
    "adain": _adain,
}
