"""Folders in the layouts of DIV2K, RealSR, Urban100 and DRealSR, or plain folders of images."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from qartsr.config.data import FolderConfig
from qartsr.errors import QartsrError
from qartsr.images import is_image, read_image

Split = Literal["train", "test"]
_JOINED = re.compile(r"(?<=[a-z0-9])(?=(?:LR|LQ|HR|HQ|GT)(?![a-z]))|(?<=\w)(?=[xX][2348]$)")
_LOW = re.compile(r"(l[rq]|low)(b[id])?(x?\d)?|x[2348]|bicubic")
_HIGH = re.compile(r"(h[rq])(x?\d)?|gt|high|x1")
"""Words by which names tell LR from HR: ``a_LR4``, ``0801x4``, ``LR-a``, ``aLRBIx4``; ``a_HR``, ``a_gt``, ``a_x1``."""


class Found(NamedTuple):
    """One image of a folder."""

    name: str
    hr: Path
    lr: Path | None
    """its LR file; while looking for it, the name that its layout gives it"""
    others: tuple[Path, ...] = ()
    """names that it has in other copies of the data set"""


class _Layout(NamedTuple):
    find: Callable[[Path, Split], list[Found]]
    expected: str
    """what the root must hold, for people"""


def folder_items(config: FolderConfig, split: Split) -> list[Found]:
    """Every image of a split, sorted by name; ``lr`` is None where LR is to be made from HR.

    That is so in a plain folder, in the train split, whose LR nobody reads, and where ``config.lr`` says so. Else a
    missing LR file is an error: made by bicubic, a real benchmark would become another one. Raises QartsrError for
    that, for LR beside a plain folder, and for a missing or empty folder.
    """
    root, key = Path(config.train_root if split == "train" else config.test_root), f"data.images.{split}_root"
    if not root.is_dir():
        raise QartsrError("is not a folder", str(root), f"correct {key}")
    layout = _LAYOUTS[config.layout]
    found = layout.find(root, split)
    if not found:
        expected = layout.expected.format(split=split, div2k=_div2k_kind(split))
        raise QartsrError(f"has no {expected}, which layout {config.layout} expects", str(root), f"correct {key}")
    if config.layout == "plain" and config.lr == "given" and split == "test":
        _demand_no_lr(root, found)
    if config.lr == "made" or split == "train":
        return [item._replace(lr=None) for item in found]
    return [item if item.lr is None else item._replace(lr=_present(item, config.layout)) for item in found]


def _present(item: Found, layout: str) -> Path:
    """The LR file that is there."""
    names = [path for path in (item.lr, *item.others) if path is not None]
    for path in names:
        if path.is_file():
            return path
    also = f" (nor are {', '.join(str(path) for path in names[1:])})" if names[1:] else ""
    what = f"is not there{also}, though layout {layout} has it as the LR of {item.hr.name}"
    raise QartsrError(what, str(names[0]), "complete the folder, or set data.images.lr to made to make LR from HR")


def _images(folder: Path) -> list[Path]:
    """Without hidden files, among them the companions that macOS leaves (``._0801.png``)."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if is_image(p) and p.is_file() and p.name[0] != ".")


def _plain(root: Path, split: Split) -> list[Found]:
    """Raises QartsrError for pairs of HR and LR: LR would be taken for HR, and other LR made of both."""
    images = _images(root)
    groups: dict[str, list[Path]] = {}
    for path in images:
        groups.setdefault(_word(path.stem), []).append(path)
    for low, high in ((low, high) for each in groups.values() for low in each for high in each):
        told = _tells(_LOW, low.stem) or _tells(_HIGH, high.stem)
        if low != high and told and not _tells(_HIGH, low.stem) and _larger(high, low):
            what = f"looks like the LR of {high.name}, and layout plain takes every image for HR"
            raise QartsrError(what, str(low), "choose the layout of these pairs, or move the LR files elsewhere")
    return [Found(path.stem, path, None) for path in images]


def _demand_no_lr(root: Path, found: list[Found]) -> None:
    """Raise QartsrError where a plain folder's images have LR in a folder in it or beside it, which nobody would read.

    Those folders, and those in them, are looked into whose names have a word that begins with LR or LQ.
    """
    near = [path for place in (root, root.resolve().parent) for path in _folders(place)]
    lower = [path for path in near if re.search(r"(?<![a-z])l[rq]", _JOINED.sub("_", path.name).lower())]
    high = {_word(item.hr.stem): item.hr for item in found}
    for folder in (*lower, *(inner for path in lower for inner in _folders(path))):
        twins = [(low, high[_word(low.stem)]) for low in _seen(folder, _images) if _word(low.stem) in high]
        pairs = [(low, twin) for low, twin in twins if twin.resolve() != low.resolve() and _larger(twin, low)]
        if len(pairs) > 1 or (pairs and len(found) == 1):  # one of many may be another picture of that number
            low, twin = pairs[0]
            what = f"looks like the LR of {twin}, but layout plain makes LR from HR"
            raise QartsrError(what, str(low), "choose the layout of these pairs, or set data.images.lr to made")


def _folders(place: Path) -> list[Path]:
    return _seen(place, lambda path: [each for each in sorted(path.iterdir()) if each.is_dir()])


def _seen(place: Path, look: Callable[[Path], list[Path]]) -> list[Path]:
    """What is in a folder that is no concern of the run: nothing, where it may not be looked into."""
    try:
        return look(place)
    except OSError:
        return []


def _words(stem: str) -> list[str]:
    return re.findall(r"[^\W_]+", _JOINED.sub("_", stem).lower())


def _word(stem: str) -> str:
    """What the names of one picture's HR and LR have in common."""
    words = _words(stem)
    return " ".join(word for word in words if not (_LOW.fullmatch(word) or _HIGH.fullmatch(word))) or " ".join(words)


def _tells(kind: re.Pattern[str], stem: str) -> bool:
    return any(kind.fullmatch(word) for word in _words(stem))


def _larger(high: Path, low: Path) -> bool:
    """Whether ``high`` is a whole multiple of ``low``, 2 to 8: what was upscaled is no LR, whatever its name."""
    try:
        (wide, tall), (width, height) = (read_image(path).size for path in (high, low))
    except QartsrError:
        return False  # whoever reads the file says what is wrong with it
    return any(wide // width == times == tall // height for times in range(2, 9))


def _div2k(root: Path, split: Split) -> list[Found]:
    kind = _div2k_kind(split)
    low = root / f"DIV2K_{kind}_LR_bicubic"

    def others(stem: str) -> tuple[Path, ...]:
        return tuple(low / folder / name for folder in ("X4", "x4") for name in (f"{stem}x4.png", f"{stem}.png"))[1:]

    high = _images(root / f"DIV2K_{kind}_HR")
    return [Found(p.stem, p, low / "X4" / f"{p.stem}x4.png", others(p.stem)) for p in high]


def _div2k_kind(split: Split) -> str:
    return "train" if split == "train" else "valid"


def _side_by_side(high: str, low: str) -> Callable[[Path, Split], list[Found]]:
    """HR and LR in one folder, told apart by the end of their names."""

    def find(root: Path, split: Split) -> list[Found]:
        ours = [(path, path.stem.removesuffix(high)) for path in _images(root) if path.stem.endswith(high)]
        return [Found(name, path, path.with_name(f"{name}{low}{path.suffix}")) for path, name in ours]

    return find


def _drealsr(root: Path, split: Split) -> list[Found]:
    prefix = next((p for p in ("", f"{split}_") if (root / f"{p}HR").is_dir()), "")
    low = root / f"{prefix}LR"

    def others(path: Path) -> tuple[Path, ...]:
        stem = path.stem.removesuffix("_x1")
        return (low / f"{stem}_x4{path.suffix}", low / f"{stem}{path.suffix}") if stem != path.stem else ()

    return [Found(p.stem, p, low / p.name, others(p)) for p in _images(root / f"{prefix}HR")]


_LAYOUTS: dict[str, _Layout] = {
    "plain": _Layout(_plain, "images"),
    "div2k": _Layout(_div2k, "images in DIV2K_{div2k}_HR"),
    "realsr": _Layout(_side_by_side("_HR", "_LR4"), "images named NAME_HR.png"),
    "urban100": _Layout(_side_by_side("_HR", "_LR"), "images named NAME_HR.png"),
    "drealsr": _Layout(_drealsr, "images in HR or {split}_HR"),
}
