"""The images of ``qartsr upscale``, one after the other: one that fails ends nothing but itself."""

from __future__ import annotations

import errno
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qartsr.cli.jobs import Job
from qartsr.cli.show import Bar, say
from qartsr.errors import QartsrError

if TYPE_CHECKING:
    from qartsr.api import OneStepSRPipeline
    from qartsr.images import Picture
    from qartsr.upscale.osediff import OSEDiffPipeline

    Pipe = OneStepSRPipeline | OSEDiffPipeline
SCALE = 4
_NO_MEMORY = re.compile("out of memory|allocate memory")
"""In torch's words, for a GPU and for the CPU; each is a RuntimeError."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_HOPELESS = (*_FULL, errno.EROFS)
"""What stops one file from being written stops all."""


class Wish(NamedTuple):
    """What is asked of every image."""

    outscale: float = SCALE
    form: str | None = None
    """of what goes to standard output"""
    quality: int | None = None
    strip: bool = False
    upright: bool = True
    max_pixels: int | None = None


class Outcome(NamedTuple):
    """What became of one image."""

    input: str
    output: str
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    """of computing and writing it; loading the model is not part of it"""
    notes: tuple[str, ...] = ()
    error: str | None = None


class PartlyFailedError(QartsrError):
    """Of several images some could not be made; the exit status is their number, at most 99."""

    def __init__(self, failed: int, total: int, where: str) -> None:
        super().__init__(f"{failed} of {total} images failed", where, "see the sentences above, one for each")
        self.status = min(failed, 99)


def upscale_all(
    jobs: tuple[Job, ...], load: Callable[[], Pipe], wish: Wish, drawn: Bar, told: Callable[[Outcome], None]
) -> list[QartsrError]:
    """Do all; ``told`` is called after each. The faults of those that failed.

    Raises QartsrError for what would fail for all of them: no model, a full disk.
    """
    faults: list[QartsrError] = []
    for job in jobs:
        drawn.begin(Path(job.name).name)
        target = str(job.target or "standard output")
        try:
            picture = _read(job, wish)
            pipe = _loaded(load)
            begun = time.monotonic()
            result = _made(job, picture, pipe, wish, drawn)
            lost = _written(job, result, wish)
            seconds = time.monotonic() - begun
            told(Outcome(job.name, target, *result.size, round(seconds, 3), (*picture.notes, *lost)))
        except _AllFailedError as error:
            raise error.fault from error.fault.__cause__
        except QartsrError as error:
            faults.append(error)
        except Exception as error:  # a fault of ours: among others it must not cost those of the others
            if len(jobs) == 1:
                raise
            what = f"cannot be done ({type(error).__name__}: {next(iter(str(error).splitlines()), '')})"
            faults.append(QartsrError(what, job.name, "leave it out, and report this"))
        else:
            continue
        told(Outcome(job.name, target, error=str(faults[-1])))
    return faults


class _AllFailedError(Exception):
    def __init__(self, fault: QartsrError) -> None:
        self.fault = fault


def _loaded(load: Callable[[], Pipe]) -> Pipe:
    try:
        return load()
    except QartsrError as error:
        raise _AllFailedError(error) from error


def _read(job: Job, wish: Wish) -> Picture:
    from qartsr.images import check_target, decode_image, read_image

    if job.source is None:
        data = sys.stdin.buffer.read()
        picture = decode_image(data, job.name, upright=wish.upright, max_pixels=wish.max_pixels)
    else:
        picture = read_image(job.source, upright=wish.upright, max_pixels=wish.max_pixels)
    check_target(_target(job, wish), picture, wish.outscale)
    return picture


def _target(job: Job, wish: Wish) -> Path:
    """Where it goes, or a name for standard output that says what is sent there."""
    from qartsr.images import target_name

    return job.target or Path(target_name("standard output.png", "", wish.form))


def _made(job: Job, picture: Picture, pipe: Pipe, wish: Wish, drawn: Bar) -> Picture:
    from qartsr.images import resized

    with enough_memory(job.name), _unfinished(job) as kept:
        result = pipe(picture, drawn.tiles) if kept is None else pipe.resume(picture, kept, drawn.tiles)
        if wish.outscale == SCALE:
            return result
        return resized(result, [max(1, round(side * wish.outscale)) for side in picture.size])


@contextmanager
def _unfinished(job: Job) -> Iterator[Path | None]:
    """Where a large picture is kept as it grows; Ctrl-C and kills leave it, a fault does not."""
    from qartsr.upscale.unfinished import forget, unfinished_of

    if job.target is None:
        yield None
        return
    kept = unfinished_of(job.target)
    try:
        yield kept
    except KeyboardInterrupt:
        if kept.exists():
            say(f"note: stopped; the same command goes on with what is in {kept}")
        raise
    except Exception:
        forget(kept)
        raise


@contextmanager
def enough_memory(source: str) -> Iterator[None]:
    """One sentence where there is not. Raises QartsrError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _NO_MEMORY.search(str(error)):
            raise
        do = "choose a smaller --tile (with --lora: --latent-tile), or a smaller image"
        raise QartsrError("there is not enough memory for it", source, do) from error


def _written(job: Job, result: Picture, wish: Wish) -> tuple[str, ...]:
    from qartsr.images import encode_like, write_image
    from qartsr.upscale.unfinished import forget, unfinished_of

    if job.target is None:
        data, notes = encode_like(_target(job, wish).suffix, result, wish.strip, wish.quality)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return notes
    kept = unfinished_of(job.target)
    try:
        try:
            notes = write_image(job.target, result, strip=wish.strip, quality=wish.quality)
        except QartsrError as error:
            if getattr(error.__cause__, "errno", None) not in _FULL or not kept.exists():
                raise
            forget(kept)  # its rows may be what fills the disk
            notes = write_image(job.target, result, strip=wish.strip, quality=wish.quality)
        forget(kept)
        return notes
    except QartsrError as error:
        if getattr(error.__cause__, "errno", None) in _HOPELESS:
            raise _AllFailedError(error) from error
        raise


def tell(outcome: Outcome, quiet: bool, verbose: bool) -> None:
    """In lines on stderr: always what failed, and unless ``quiet`` what came of it."""
    if outcome.error is not None:
        say(f"error: {outcome.error}")
    elif not quiet:
        for note in outcome.notes:
            say(f"note: {outcome.input}: {note}")
        spent = f" in {outcome.seconds:.1f} s" if verbose else ""
        say(f"{outcome.output}: {outcome.width}x{outcome.height}{spent}")


def as_json(outcomes: list[Outcome], skipped: int) -> dict[str, Any]:
    """What ``--json`` prints."""
    failed = sum(outcome.error is not None for outcome in outcomes)
    return {"images": [outcome._asdict() for outcome in outcomes], "failed": failed, "skipped": skipped}
