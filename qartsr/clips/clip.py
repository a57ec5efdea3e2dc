"""What is known of a clip before its frames are worked on."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qartsr.errors import QartsrError

RGB = np.ndarray[Any, np.dtype[np.uint8]]
"""(H, W, 3)"""


class Look(NamedTuple):
    """How the numbers of a clip are to be seen; codes as in ITU-T H.273."""

    full: bool
    """black is 0 and white 255, not 16 and 235"""
    matrix: int
    primaries: int
    transfer: int
    aspect: Fraction
    """width of a pixel by its height, of the upright frame"""


@dataclass(frozen=True)
class Clip:
    """What a survey found. Frames are upright; those outside of the wanted range are not there."""

    path: Path
    size: tuple[int, int]
    """width, height"""
    time_base: Fraction
    """seconds of a tick"""
    times: tuple[int, ...]
    """in ticks since the first frame, when each frame begins, and when the last one ends"""
    offset: Fraction
    """seconds from the file's own beginning to the first frame"""
    begin: Fraction
    """of these seconds, what is cut away; sound before that is cut away too"""
    end: Fraction | None
    """seconds from the file's own beginning, where sound is cut; None: nowhere"""
    cuts: frozenset[int]
    """numbers of the frames that begin another shot, the first one not among them"""
    look: Look
    first: int | None
    """time stamp of the first frame in the file; None where frames are only counted"""

    @property
    def count(self) -> int:
        """How many frames."""
        return len(self.times) - 1

    @property
    def rate(self) -> Fraction:
        """Mean frames per second."""
        return Fraction(self.count) / (self.times[-1] * self.time_base)


def no_frames(path: Path) -> QartsrError:
    """What to raise for a range that has none."""
    return QartsrError("has no frame in that range", str(path), "choose other --from and --to")
