"""Moments of GroupNorms that several tiles of one image share, and who can observe and impose them.

A model of torch modules is hooked into (:mod:`qartsr.models.moments`); compiled graphs have no modules and bring their
own way (:mod:`qartsr.runtime.norms`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Moments(NamedTuple):
    """Of one GroupNorm's input, per group, each (G,)."""

    mean: Floats
    square: Floats


Statistics = dict[str, Moments]
"""By the name of the GroupNorm, in the order they are called."""

Seen = Callable[[str, NDArray[np.float64]], None]
"""Told a norm's name and its (2, G) mean and mean square. It may raise, to end the run."""


class GroupNorm(NamedTuple):
    """One GroupNorm, its weight and bias per channel, (C,)."""

    groups: int
    eps: float
    weight: Floats
    bias: Floats


class Norms(Protocol):
    """The GroupNorms of a model."""

    def count(self) -> int:
        """How many there are."""
        ...

    def imposed(self, statistics: Statistics) -> AbstractContextManager[None]:
        """Within this context every norm in ``statistics`` normalises by them."""
        ...

    def watched(self, weight: Floats, seen: Seen) -> AbstractContextManager[None]:
        """Within this context ``seen`` is told the moments of each norm, in the order they are called.

        ``weight``: (H, W), how much each pixel of the network's input counts.
        """
        ...


def share(weight: Floats, sides: Sequence[int]) -> Floats:
    """``weight`` (H, W), at the resolution of a norm's input: (positions,), sums to 1.

    ``sides``: (h, w), or their product where the norm sees them flat, as attention has it.
    """
    height, width = sides if len(sides) == 2 else _sides(sides[0], *weight.shape)
    flat = (_means(weight.shape[0], height) @ weight @ _means(weight.shape[1], width).T).reshape(-1)
    return (flat / flat.sum()).astype(np.float32)


def _sides(count: int, height: int, width: int) -> tuple[int, int]:
    """Sides of ``count`` positions, given the image they come from."""
    rows = round((count * height / width) ** 0.5)
    return rows, count // rows


def _means(size: int, count: int) -> NDArray[np.float64]:
    """(count, size): each row is the mean over its part of an axis; parts overlap where they do not divide it."""
    place, begin = np.arange(size), np.arange(count)[:, None]
    inside = (place >= begin * size // count) & (place < -(-(begin + 1) * size // count))
    return inside / inside.sum(1, keepdims=True)


def affine(norm: GroupNorm, moments: Moments) -> Floats:
    """(2, C) gain and shift: x * gain + shift is (x - mean) / sqrt(variance + eps) * weight + bias."""
    variance = np.maximum(moments.square - np.square(moments.mean), 0)
    width = len(norm.weight) // norm.groups
    gain = np.repeat(1 / np.sqrt(variance + np.float32(norm.eps)), width) * norm.weight
    return np.stack([gain, norm.bias - np.repeat(moments.mean, width) * gain]).astype(np.float32)
