"""A folder of images as a clip: its frames follow in the order of the numbers in their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from qartsr.clips.clip import RGB, Clip, Look, no_frames
from qartsr.clips.cuts import SIDE, FrameDifferences
from qartsr.errors import QartsrError
from qartsr.images import is_image, read_image

_REC709 = 1


def natural(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Key of sorting: 2.png before 10.png."""
    words = re.split(r"(\d+)", path.name)
    return tuple((0, int(word), word) if word.isdecimal() else (1, 0, word) for word in words)


def survey_folder(path: Path, start: Fraction | None, end: Fraction | None, fps: Fraction | None) -> Clip:
    """As :func:`qartsr.clips.source.survey`."""
    if fps is None:
        raise QartsrError("a folder of frames does not say how fast they follow", str(path), "give --fps")
    files = _frame_files(path)
    if not files:
        raise QartsrError("has no images", str(path), "check the path")
    begin, stop = _counted_range(len(files), start, end, fps)
    if begin >= stop:
        raise no_frames(path)
    differences, size = FrameDifferences(), None
    for file in files[begin:stop]:
        image = read_image(file)
        if size not in (None, image.size):
            what = f"is {image.width}x{image.height}, unlike the frames before it, which are {size[0]}x{size[1]}"
            raise QartsrError(what, str(file), "give frames of one size")
        size = image.size
        small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        differences.add(np.asarray(small))
    assert size is not None
    look = Look(False, _REC709, _REC709, _REC709, Fraction(1))
    times = tuple(range(stop - begin + 1))
    return Clip(path, size, 1 / fps, times, begin / fps, begin / fps, end, differences.cuts(), look, begin)


def _counted_range(count: int, start: Fraction | None, end: Fraction | None, fps: Fraction) -> tuple[int, int]:
    begin = 0 if start is None else -int(-start * fps // 1)
    return begin, count if end is None else min(count, -int(-end * fps // 1))


def _frame_files(path: Path) -> list[Path]:
    files = [file for file in path.iterdir() if is_image(file) and file.is_file() and file.name[0] != "."]
    return sorted(files, key=natural)


def folder_frames(clip: Clip) -> Iterator[Callable[[], RGB]]:
    """A function per frame that reads it."""
    for file in _frame_files(clip.path)[clip.first or 0 :]:
        yield partial(_pixels, file)


def _pixels(file: Path) -> RGB:
    return np.asarray(read_image(file).convert("RGB"))
