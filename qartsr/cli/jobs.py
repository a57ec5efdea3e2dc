"""Which file becomes which, decided before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from qartsr.errors import QartsrError


class Jobs(NamedTuple):
    """Images to upscale."""

    files: tuple[tuple[Path, Path], ...]
    """(source, target)"""
    ignored: tuple[str, ...]
    """names in the source folder that are no images"""


def plan_jobs(source: Path, target: Path) -> Jobs:
    """A file becomes a file; every image of a folder (its subfolders left alone) one of the same name in a folder.

    Raises QartsrError when either cannot be, before any model is loaded.
    """
    if not source.exists():
        raise QartsrError("does not exist", str(source), "check the path")
    if source.resolve() == target.resolve():
        raise QartsrError("is both the input and the output", str(source), "name another output")
    return _folder(source, target) if source.is_dir() else _file(source, target)


def demand_file(target: Path) -> None:
    """Raise QartsrError when ``target`` cannot become a file, before the work that it is for."""
    if target.is_dir():
        raise QartsrError("is a folder", str(target), "name a file")
    _demand_writable(target.parent)


def _demand_writable(folder: Path) -> None:
    """Hours of work shall not end at a folder that can be neither written to nor made."""
    whole = folder.absolute()
    nearest = next(existing for existing in (whole, *whole.parents) if existing.exists())
    if not nearest.is_dir():
        raise QartsrError("is not a folder", str(nearest), "choose another output")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise QartsrError("may not be written to", str(nearest), "choose another output")


def _file(source: Path, target: Path) -> Jobs:
    if target.is_dir():
        raise QartsrError("is a folder", str(target), f"name a file, for example {target / source.name}")
    _demand_writable(target.parent)
    return Jobs(((source, target),), ())


def _folder(source: Path, target: Path) -> Jobs:
    from qartsr.images import READABLE, is_image, target_name

    if target.exists() and not target.is_dir():
        raise QartsrError("is a file", str(target), f"name a folder for the images of {source}")
    _demand_writable(target)
    entries = sorted(entry for entry in source.iterdir() if not entry.name.startswith("."))
    images = [entry for entry in entries if is_image(entry) and not entry.is_dir()]
    if not images:
        raise QartsrError(f"has no {READABLE} images", str(source), "check the path")
    ignored = tuple(entry.name for entry in entries if entry not in images)
    files = tuple((image, target / target_name(image.name)) for image in images)
    _demand_distinct(files)
    return Jobs(files, ignored)


def _demand_distinct(files: tuple[tuple[Path, Path], ...]) -> None:
    """A BMP or GIF file becomes a PNG file, which may be there already."""
    sources: dict[Path, Path] = {}
    for source, target in files:
        if target in sources:
            what = f"would become {target.name}, as {sources[target].name} does"
            raise QartsrError(what, str(source), "rename one of them")
        sources[target] = source
