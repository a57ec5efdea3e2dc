"""Where a clip cuts from one shot to the next: a frame unlike the one before, among frames that differ less.

Motion makes neighbouring differences alike; a cut stands out among them. So the mean absolute difference of two small
grey frames is held against the median of those around it, before and after, and against a floor that noise and
flicker stay below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Grey = np.ndarray[Any, np.dtype[np.uint8]]

SIDE = 64
"""Frames are compared with so many pixels on each side."""
FLOOR = 0.04
"""Least mean difference of a cut, of the range of grey."""
TIMES = 3.0
"""A cut is so many times the median around it at least."""
AROUND = 4
"""Differences before, and after, that say what is usual."""


class FrameDifferences:
    """Told small grey frames in their order, keeps how much each differs from the one before."""

    def __init__(self) -> None:
        self._before: Grey | None = None
        self._found: list[float] = []

    def add(self, frame: Grey) -> None:
        """The next frame, (SIDE, SIDE)."""
        if self._before is not None:
            difference = np.abs(frame.astype(np.int16) - self._before.astype(np.int16)).mean()
            self._found.append(float(difference) / 255)
        self._before = frame

    def cuts(self) -> frozenset[int]:
        """Numbers of the frames, counted from 0, that begin another shot than the first."""
        return find_cuts(self._found)


def find_cuts(differences: Sequence[float]) -> frozenset[int]:
    """Numbers of the frames that begin another shot; ``differences[n]`` is of frames n and n + 1, from 0 to 1."""
    found = set()
    for number, difference in enumerate(differences):
        around = [*differences[max(0, number - AROUND) : number], *differences[number + 1 : number + 1 + AROUND]]
        usual = float(np.median(around)) if len(around) > 1 else FLOOR
        peak = max(differences[max(0, number - 1) : number + 2])  # the end of a motion is none
        if difference >= max(FLOOR, TIMES * usual, peak):
            found.add(number + 1)
    return frozenset(found)
