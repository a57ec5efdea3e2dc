"""Images of two folders, matched by name."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import NamedTuple

from qartsr.errors import QartsrError


class Pair(NamedTuple):
    """One name."""

    name: str
    image: Path
    reference: Path


class Matched(NamedTuple):
    """What two folders hold."""

    pairs: tuple[Pair, ...]
    ignored: tuple[tuple[Path, tuple[str, ...]], ...]
    """by folder, the names of what is no image"""


def match(images: Path, references: Path) -> Matched:
    """Files of equal stem, sorted by it. Raises QartsrError unless every image has one reference and vice versa."""
    (left, left_ignored), (right, right_ignored) = _by_stem(images), _by_stem(references)
    for ours, theirs, folder in ((left, right, references), (right, left, images)):
        alone = sorted(ours.keys() - theirs.keys())
        if alone:
            what = f"has no counterpart in {folder}" + (f" (one of {len(alone)})" if len(alone) > 1 else "")
            raise QartsrError(what, str(ours[alone[0]]), "give two folders of the same images")
    pairs = tuple(Pair(stem, left[stem], right[stem]) for stem in sorted(left))
    ignored = ((images, left_ignored), (references, right_ignored))
    return Matched(pairs, tuple((folder, names) for folder, names in ignored if names))


def _by_stem(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Images by stem (composed, as macOS decomposes its names), and the names of everything else that is not hidden."""
    from qartsr.images import READABLE, is_image

    if not folder.is_dir():
        raise QartsrError("is not a folder", str(folder), "check the path")
    found: dict[str, Path] = {}
    ignored: list[str] = []
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        stem = unicodedata.normalize("NFC", path.stem)
        if not is_image(path) or path.is_dir():
            ignored.append(path.name)
        elif stem in found:
            raise QartsrError(f"has the same name as {found[stem].name}", str(path), "keep one of them")
        else:
            found[stem] = path
    if not found:
        raise QartsrError(f"has no {READABLE} images", str(folder), "check the path")
    return found, tuple(ignored)
