"""Which file becomes which, decided before anything is computed."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from qartsr.errors import QartsrError

STREAM = "-"
"""The word for standard input and output."""


class Job(NamedTuple):
    """An image to upscale; None: standard input, standard output."""

    source: Path | None
    target: Path | None

    @property
    def name(self) -> str:
        """Of the source, for people."""
        return str(self.source or "standard input")


class Jobs(NamedTuple):
    """Images to upscale."""

    files: tuple[Job, ...]
    ignored: tuple[str, ...]
    """names in the source folders that are no images"""
    skipped: int
    """how many are there already"""


class Naming(NamedTuple):
    """How outputs are found and called."""

    recursive: bool = False
    """subfolders too, which the output then has as well"""
    suffix: str = ""
    """follows the name of a file in a folder, before its ending"""
    form: str | None = None
    """ending of every file in a folder; None: its source's, where that can be written"""
    existing: str = "replace"
    """or ``skip``, or ``refuse``"""


_PLAIN = Naming()


class _Found(NamedTuple):
    source: Path
    inner: Path
    """its place below the output folder"""


def plan_jobs(words: Sequence[str], output: str, naming: Naming = _PLAIN) -> Jobs:
    """Files, folders and patterns become files in a folder; one file may become a file.

    A folder stands for its images. Raises QartsrError when it cannot be, before any model is loaded.
    """
    if STREAM in words or output == STREAM:
        return Jobs((_streamed(words, output, naming),), (), 0)
    given = [path for word in words for path in _expanded(word)]
    target, ignored = Path(output), list[str]()
    if len(given) == 1 and not given[0].is_dir() and not target.is_dir() and not output.endswith(("/", os.sep)):
        return _settled([Job(given[0], _named(given[0], target, naming))], (), naming)
    if target.exists() and not target.is_dir():
        name = str(given[0]) if len(given) == 1 else f"{len(given)} inputs"
        raise QartsrError("is a file", str(target), f"name a folder for the images of {name}")
    _demand_writable(target)
    found = [each for path in given for each in _images(path, target, naming.recursive, ignored)]
    if not found:
        from qartsr.images import READABLE

        raise QartsrError(f"has no {READABLE} images", ", ".join(words), "check the path")
    from qartsr.images import target_name

    jobs = [
        Job(source, target / inner.with_name(target_name(inner.name, naming.suffix, naming.form)))
        for source, inner in found
    ]
    _demand_distinct(jobs)
    return _settled(jobs, tuple(ignored), naming)


def demand_file(target: Path) -> None:
    """Raise QartsrError when ``target`` cannot become a file, before the work that it is for."""
    if target.is_dir():
        raise QartsrError("is a folder", str(target), "name a file")
    _demand_writable(target.parent)


def _streamed(words: Sequence[str], output: str, naming: Naming) -> Job:
    """One image through standard input, standard output or both."""
    if len(words) > 1:
        raise QartsrError("goes with one input only", STREAM, "name one image")
    (source,) = (None if word == STREAM else _one_file(word) for word in words)
    if output == STREAM:
        if naming.suffix or naming.existing != "replace":
            raise QartsrError("has no name", "standard output", "leave out --suffix and what is about existing files")
        return Job(source, None)
    target = Path(output)
    if target.is_dir():
        raise QartsrError("is a folder", output, "name a file for what comes from standard input")
    return Job(source, _named(None, target, naming))


def _one_file(word: str) -> Path:
    (path, *more) = _expanded(word)
    if more or path.is_dir():
        raise QartsrError("is more than one image", word, "name one for standard output")
    return path


def _expanded(word: str) -> list[Path]:
    """A path as it is, or what a pattern stands for, where the shell has not seen to that."""
    path = Path(word)
    if path.exists():
        return [path]
    if glob.has_magic(word) and (found := sorted(glob.glob(word, recursive=True))):
        return [Path(each) for each in found]
    raise QartsrError("does not exist", word, "check the path")


def _named(source: Path | None, target: Path, naming: Naming) -> Path:
    """A single file as the user names it."""
    from qartsr.images import demand_format, target_name

    if naming.suffix:
        raise QartsrError("names a file", str(target), "leave out --suffix, which is for files in a folder")
    kind = demand_format(target)
    if naming.form and demand_format(Path(target_name("a.png", "", naming.form))) != kind:
        raise QartsrError(f"does not end as {naming.form} does", str(target), "leave out --format")
    _demand_writable(target.parent)
    return target


def _images(path: Path, target: Path, recursive: bool, ignored: list[str]) -> Iterator[_Found]:
    """``path`` itself, or the images in it; ``ignored`` gets the names of what is none."""
    from qartsr.images import is_image

    if not path.is_dir():
        yield _Found(path, Path(path.name))
        return
    for entry in _entries(path, target if recursive else None):
        if is_image(entry) and not entry.is_dir():
            yield _Found(entry, entry.relative_to(path))
        elif not recursive or not entry.is_dir():
            ignored.append(str(entry.relative_to(path)))


def _entries(folder: Path, target: Path | None) -> Iterator[Path]:
    """What is in a folder and is not hidden, in order; with ``target`` also what is below, except in ``target``."""
    for entry in sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".")):
        yield entry
        inner = target is not None and entry.is_dir() and not entry.is_symlink()
        if inner and entry.resolve() != target.resolve():  # type: ignore[union-attr]
            yield from _entries(entry, target)


def _settled(jobs: list[Job], ignored: tuple[str, ...], naming: Naming) -> Jobs:
    """Those that are to be done."""
    for source, target in jobs:
        if source is not None and target is not None and source.resolve() == target.resolve():
            raise QartsrError("is both the input and the output", str(source), "name another output, or a --suffix")
    there = [job for job in jobs if job.target is not None and job.target.exists()]
    if there and naming.existing == "refuse":
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise QartsrError(f"exists already{more}", str(there[0].target), "say --overwrite or --skip-existing")
    if naming.existing == "skip":
        return Jobs(tuple(job for job in jobs if job not in there), ignored, len(there))
    return Jobs(tuple(jobs), ignored, 0)


def _demand_writable(folder: Path) -> None:
    """Hours of work shall not end at a folder that can be neither written to nor made."""
    whole = folder.absolute()
    nearest = next(existing for existing in (whole, *whole.parents) if existing.exists())
    if not nearest.is_dir():
        raise QartsrError("is not a folder", str(nearest), "choose another output")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise QartsrError("may not be written to", str(nearest), "choose another output")


def _demand_distinct(jobs: list[Job]) -> None:
    """A BMP or GIF file becomes a PNG file, which may be there already; folders may have equal names in them."""
    sources: dict[Path | None, Job] = {}
    for job in jobs:
        if job.target in sources:
            other, target = sources[job.target].source, job.target
            assert other is not None and target is not None and job.source is not None  # a folder has no streams
            same = other.name if other.parent == job.source.parent else str(other)
            raise QartsrError(f"would become {target.name}, as {same} does", str(job.source), "rename one of them")
        sources[job.target] = job
