"""A clip four times as wide and high, frame by frame, in work that may end at any time and goes on where it was.

Beside the clip to write, in ``NAME.part``, lie the finished frames of the segment at hand (PNG) and the finished
segments; a clip is joined from them when all are there. Memory is that of an image. Whoever runs the same command
again after a kill goes on at the frame that was not finished and ends with the same bytes; other settings, another
source or another model begin anew.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from qartsr.clips.clip import RGB, Clip
from qartsr.clips.names import is_film
from qartsr.clips.sink import SEGMENT, Encoding, demand_writable, encoding_of, join, write_segment
from qartsr.clips.source import frames, survey
from qartsr.errors import QartsrError, printable
from qartsr.files import read_json, replacing, write_json
from qartsr.images import Picture, read_image
from qartsr.upscale.unfinished import unfinished_of

_LOG = logging.getLogger("qartsr")
_SCALE = 4
_JOB = "job.json"

Restore = Callable[[Picture, Picture | None], Picture]
"""A frame and the one before it in its shot, None for the first -> the frame, 4 times as wide and high."""


class ClipOptions(NamedTuple):
    """What a caller may say of a clip."""

    crf: int | None = None
    """quality of H.264, 0 (lossless of 4:2:0) to 51; None: 16, and FFV1 in .mkv"""
    fps: Fraction | None = None
    """frames per second of a folder of frames, or of a file without time stamps"""
    start: Fraction | None = None
    """seconds; None: from the beginning"""
    end: Fraction | None = None
    """seconds; None: to the end"""
    strip: bool = False
    """leave out metadata"""


def clip_options(
    crf: int | None = None,
    fps: float | Fraction | None = None,
    start: float | Fraction | None = None,
    end: float | Fraction | None = None,
    strip: bool = False,
) -> ClipOptions:
    """The options, floats made the fractions that they were meant as. Raises QartsrError for values out of range."""
    if crf is not None and not 0 <= crf <= 51:
        raise QartsrError(f"{crf} is not from 0 to 51", "crf", "choose 16, or more for a smaller file")
    if fps is not None and not 0 < fps <= 1000:
        raise QartsrError(f"{fps} is no rate", "fps", "choose frames per second, for example 25")
    if any(value is not None and value < 0 for value in (start, end)):
        raise QartsrError("a time is below 0", "start, end", "give seconds from the clip's beginning")
    return ClipOptions(crf, _exact(fps), _exact(start), _exact(end), strip)


def _exact(value: float | Fraction | None) -> Fraction | None:
    return None if value is None else Fraction(value).limit_denominator(1_000_000)


class ClipProgress(NamedTuple):
    """How far the work is."""

    done: int
    total: int
    resumed: int
    """frames that an earlier run had finished"""


class ClipResult(NamedTuple):
    """What was written."""

    size: tuple[int, int]
    """width, height"""
    frames: int
    shots: int
    notes: tuple[str, ...]
    """what was left out"""


ClipReport = Callable[[ClipProgress], None]


def quiet(progress: ClipProgress) -> None:
    """Report nothing."""


def upscale_clip(
    restore: Restore,
    source: Path,
    target: Path,
    options: ClipOptions,
    model: Mapping[str, Any],
    report: ClipReport = quiet,
) -> ClipResult:
    """Write ``source``, a video file or a folder of frames, to ``target``, a video file or a folder for PNG frames.

    Times, sound, subtitles, metadata, colour range and matrix are the source's, see :mod:`qartsr.clips.sink`.

    Parameters
    ----------
    model: says, in JSON, what ``restore`` does; work is taken up again only for the same.
    report: called at the beginning and after each frame.

    Raises QartsrError for what :func:`qartsr.clips.source.survey` refuses, and for a target that cannot hold the clip.
    """
    encoding = _encoding(target, options)
    clip = survey(source, options.start, options.end, options.fps)
    notes = _demand_target(source, target, clip, encoding)
    with _Work.begun(target, _identity(source, options, encoding, model), clip, encoding) as work:
        _restore_rest(restore, clip, work, report)
        work.finish(target, options.strip)
    width, height = clip.size
    return ClipResult((width * _SCALE, height * _SCALE), clip.count, 1 + len(clip.cuts), notes)


def _encoding(target: Path, options: ClipOptions) -> Encoding | None:
    """None for a folder of frames."""
    if is_film(target):
        return encoding_of(target, options.crf)
    if target.suffix and not target.is_dir():
        do = "end it in .mp4, .mov or .mkv, or in nothing for a folder of PNG frames"
        raise QartsrError("is not what a clip is written as", str(target), do)
    if options.crf is not None:
        raise QartsrError("PNG frames have no --crf", str(target), "leave it out")
    return None


def _demand_target(source: Path, target: Path, clip: Clip, encoding: Encoding | None) -> tuple[str, ...]:
    if target.exists() and source.resolve() == target.resolve():
        raise QartsrError("is both the input and the output", str(source), "name another output")
    if encoding is not None:
        if target.is_dir():
            raise QartsrError("is a folder", str(target), "name a file")
        return demand_writable(clip, target, encoding, _SCALE)
    if target.is_dir() and any(target.iterdir()):
        raise QartsrError("holds other files", str(target), "name a new folder for the frames")
    return ()


def _identity(
    source: Path, options: ClipOptions, encoding: Encoding | None, model: Mapping[str, Any]
) -> dict[str, Any]:
    """What the bytes of the clip depend on; files are known by size and time of change, to be quick."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    looks = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    said = {name: None if value is None else str(value) for name, value in options._asdict().items()}
    form = [] if encoding is None else [encoding.codec, dict(encoding.options)]
    return {"source": [list(look) for look in looks], "options": said, "encoding": form, "model": dict(model)}


def _restore_rest(restore: Restore, clip: Clip, work: _Work, report: ClipReport) -> None:
    begin = work.done
    report(ClipProgress(begin, clip.count, begin))
    if begin == clip.count:
        return
    before: Picture | None = None
    for number, pixels in enumerate(frames(clip, max(begin - 1, 0)), max(begin - 1, 0)):
        picture = Picture.of(Image.fromarray(pixels), {})
        if number >= begin:
            work.add(restore(picture, None if number in clip.cuts else before))
            report(ClipProgress(number + 1, clip.count, begin))
        before = picture
    if work.done < clip.count:
        do = "see whether it is still being written"
        raise QartsrError(f"gave {work.done} of {clip.count} frames, fewer than before", str(clip.path), do)


class _Work:
    """The folder of finished pieces. ``done`` frames are finished."""

    def __init__(self, folder: Path, clip: Clip, encoding: Encoding | None) -> None:
        self._folder, self._clip, self._encoding = folder, clip, encoding
        for name in ("frames", "segments"):
            (folder / name).mkdir(exist_ok=True)
        segments = 0
        while self._segment(segments).exists():
            segments += 1
        self.done = min(segments * SEGMENT, clip.count)
        self._begun = segments * SEGMENT
        for file in self._frames_below(self._begun):
            file.unlink()
        while self._frame(self.done).exists() and self.done < clip.count:
            self.done += 1
        self._close_segment()

    @classmethod
    @contextmanager
    def begun(cls, target: Path, identity: Mapping[str, Any], clip: Clip, encoding: Encoding | None) -> Iterator[_Work]:
        """The work on ``target``, taken up again where it is the same. Raises QartsrError while another is at it."""
        folder = unfinished_of(target)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(folder):
                if (folder / _JOB).exists() and read_json(folder / _JOB) != identity:
                    _LOG.warning("%s", printable(f"{folder}: what an earlier run of something else left is dropped"))
                    _emptied(folder)
                write_json(folder / _JOB, identity)
                yield cls(folder, clip, encoding)
        except OSError as error:
            do = "choose another output, or free some disk space"
            raise QartsrError(f"cannot be written ({error.strerror or error})", str(folder), do) from error
        shutil.rmtree(folder, ignore_errors=True)

    def add(self, picture: Picture) -> None:
        """Keep the next frame."""
        with replacing(self._frame(self.done)) as temporary:
            picture.convert("RGB").save(temporary, "PNG", compress_level=1)
        self.done += 1
        self._close_segment()

    def finish(self, target: Path, strip: bool) -> None:
        """Make the clip of all pieces."""
        if self._encoding is None:
            if target.is_dir():
                target.rmdir()
            os.replace(self._folder / "frames", target)
            return
        segments = [self._segment(number) for number in range(-(-self._clip.count // SEGMENT))]
        join(target, segments, self._clip, self._encoding, strip)

    def _close_segment(self) -> None:
        """Encode the frames at hand when they fill a segment, or are the last."""
        full = self.done - self._begun == SEGMENT or (self.done == self._clip.count > self._begun)
        if self._encoding is None or not full:
            return
        numbers = range(self._begun, self.done)
        made = (_pixels(self._frame(number)) for number in numbers)
        write_segment(self._segment(self._begun // SEGMENT), made, self._clip, self._encoding)
        self._begun = self.done
        for file in self._frames_below(self._begun):
            file.unlink()

    def _frames_below(self, number: int) -> list[Path]:
        if self._encoding is None:
            return []
        names = {self._frame(each).name for each in range(max(0, number - 2 * SEGMENT), number)}
        return [file for file in (self._folder / "frames").iterdir() if file.name in names]

    def _frame(self, number: int) -> Path:
        return self._folder / "frames" / f"{number + 1:06}.png"

    def _segment(self, number: int) -> Path:
        return self._folder / "segments" / f"{number:06}.nut"


def _pixels(file: Path) -> RGB:
    return np.asarray(read_image(file).convert("RGB"))


def _emptied(folder: Path) -> None:
    for name in ("frames", "segments"):
        shutil.rmtree(folder / name, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder for this process, where the system can."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            do = "wait for the other run, or name another output"
            raise QartsrError("is being worked on", str(folder), do) from error
        yield
