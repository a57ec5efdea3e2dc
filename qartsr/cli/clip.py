"""What ``qartsr upscale`` does with a clip: its options, its progress, and what it says at the end."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from qartsr.cli.command import whole
from qartsr.cli.show import LINE_SECONDS, say
from qartsr.clips.names import is_clip, is_film
from qartsr.errors import QartsrError, printable

if TYPE_CHECKING:
    from qartsr.upscale.clip import ClipOptions, ClipProgress, ClipResult

_LONGEST = 10_000_000
"""Seconds, 115 days: no clip is longer."""

Upscale = Callable[["ClipOptions", Callable[["ClipProgress"], None]], "ClipResult"]


def add_clip_options(parser: argparse.ArgumentParser) -> None:
    """Declare what goes with a clip only."""
    clips = parser.add_argument_group("clips", "video files and folders of frames; needs the extra [video]")
    crf = "quality of H.264, 0 to 51, less is better and larger (default: 16; .mkv is lossless FFV1 without it)"
    clips.add_argument("--crf", metavar="N", type=whole(0, 51), help=crf)
    fps = "frames per second of a folder of frames, or of a file without time stamps: 25, 23.976, 30000/1001"
    clips.add_argument("--fps", metavar="RATE", type=_rate, help=fps)
    since, until = (
        f"only frames {word}: seconds, M:SS or H:MM:SS" for word in ("from this time on", "before this time")
    )
    clips.add_argument("--from", dest="start", metavar="TIME", type=seconds, help=since)
    clips.add_argument("--to", dest="end", metavar="TIME", type=seconds, help=until)


def wants_clip(source: Path, target: Path) -> bool:
    """Whether a clip is read or written: a video file, or a folder that becomes one."""
    return (is_clip(source) and not source.is_dir()) or is_film(target)


def demand_no_clip_options(args: argparse.Namespace) -> None:
    """Raise QartsrError for an option that images do not have."""
    flags = {"--crf": args.crf, "--fps": args.fps, "--from": args.start, "--to": args.end}
    for flag, value in flags.items():
        if value is not None:
            raise QartsrError(f"{flag} is for clips", "qartsr upscale", "leave it out, or name a video file")


def run_clip(source: Path, target: Path, args: argparse.Namespace, upscale: Upscale) -> None:
    """Upscale one clip with ``upscale`` and say what came of it. Raises QartsrError."""
    from qartsr.upscale.clip import ClipOptions

    if not source.exists():
        raise QartsrError("does not exist", str(source), "check the path")
    options = ClipOptions(args.crf, args.fps, args.start, args.end, args.strip_metadata)
    with _shown(source.name) as progress:
        try:
            result = upscale(options, progress)
        except KeyboardInterrupt:
            progress.interrupted()
            raise
    for note in result.notes:
        say(f"note: {source}: {note}")
    shots = f"{result.shots} shot{'s' * (result.shots > 1)}"
    say(f"{target}: {result.size[0]}x{result.size[1]}, {result.frames} frames, {shots}{progress.speed()}")


class _Progress:
    """Frames done, frames per second of this run, and how long the rest will take."""

    def __init__(self, draw: Callable[[ClipProgress, str], None]) -> None:
        self._draw, self._begun, self._last = draw, time.monotonic(), None

    _last: ClipProgress | None

    def __call__(self, progress: ClipProgress) -> None:
        """Take note, and draw."""
        if self._last is None:
            self._begun = time.monotonic()
            if progress.resumed:
                say(f"note: {progress.resumed} of {progress.total} frames are there from an earlier run")
        self._last = progress
        self._draw(progress, f"{progress.done}/{progress.total} frames{self.speed()}{self._rest()}")

    def speed(self) -> str:
        """In words, empty before the first frame."""
        rate = self._rate()
        return f", {rate:.3g} frames per second" if rate else ""

    def interrupted(self) -> None:
        """Say where the next run begins."""
        if self._last is not None and self._last.done:
            say(f"note: stopped after {self._last.done} of {self._last.total} frames; the same command goes on there")

    def _rate(self) -> float:
        if self._last is None or self._last.done == self._last.resumed:
            return 0.0
        return (self._last.done - self._last.resumed) / max(time.monotonic() - self._begun, 1e-9)

    def _rest(self) -> str:
        rate = self._rate()
        if not rate or self._last is None:
            return ""
        left = round((self._last.total - self._last.done) / rate)
        return f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"


@contextmanager
def _shown(name: str) -> Iterator[_Progress]:
    """A bar on a terminal; elsewhere a line now and then."""
    if not sys.stderr.isatty():
        said = time.monotonic()

        def tell(progress: ClipProgress, text: str) -> None:
            nonlocal said
            if time.monotonic() - said >= LINE_SECONDS:
                said = time.monotonic()
                say(f"{name}: {text}")

        yield _Progress(tell)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(name), total=None, text="looking through it")

        def draw(progress: ClipProgress, text: str) -> None:
            bar.update(task, completed=progress.done, total=progress.total, text=text)

        yield _Progress(draw)


def seconds(text: str) -> Fraction:
    """``12.5``, ``1:02`` or ``1:02:03.25`` in seconds."""
    if not re.fullmatch(r"(\d{1,9}:)?(\d{1,9}:)?\d{1,9}(\.\d{1,18})?", text):
        raise argparse.ArgumentTypeError(f"{text} is no time; write seconds, M:SS or H:MM:SS")
    total = Fraction(0)
    for part in text.split(":"):
        total = 60 * total + Fraction(part)
    if total > _LONGEST:
        raise argparse.ArgumentTypeError(f"{text[:40]} is more than {_LONGEST} seconds")
    return total


def _rate(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is no rate; write 25, 23.976 or 30000/1001")
    return rate
