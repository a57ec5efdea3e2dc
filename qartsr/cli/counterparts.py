"""Images of two folders, matched by name."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from qartsr.errors import QartsrError


class Pair(NamedTuple):
    """One name."""

    name: str
    image: Path
    reference: Path


def match(images: Path, references: Path) -> tuple[Pair, ...]:
    """Files of equal stem, sorted by it. Raises QartsrError unless every image has one reference and vice versa."""
    left, right = _by_stem(images), _by_stem(references)
    for ours, theirs, folder in ((left, right, references), (right, left, images)):
        alone = sorted(ours.keys() - theirs.keys())
        if alone:
            more = f", nor have {len(alone) - 1} others" if len(alone) > 1 else ""
            what = f"has no counterpart in {folder}{more}"
            raise QartsrError(what, str(ours[alone[0]]), "give two folders of the same images")
    return tuple(Pair(stem, left[stem], right[stem]) for stem in sorted(left))


def _by_stem(folder: Path) -> dict[str, Path]:
    from qartsr.upscale import is_image

    if not folder.is_dir():
        raise QartsrError("is not a folder", str(folder), "check the path")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not is_image(path) or path.name.startswith("."):
            continue
        if path.stem in found:
            raise QartsrError(f"has the same name as {found[path.stem].name}", str(path), "keep one of them")
        found[path.stem] = path
    if not found:
        raise QartsrError("has no PNG, JPEG or WebP images", str(folder), "check the path")
    return found
