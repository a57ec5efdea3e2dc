"""Folders in the layouts of DIV2K, RealSR, Urban100 and DRealSR, or plain folders of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from qartsr.config.data import FolderConfig
from qartsr.errors import QartsrError

Split = Literal["train", "test"]
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


class Found(NamedTuple):
    """One image of a folder; ``lr`` is where its layout wants LR to be, whether it is there or not."""

    name: str
    hr: Path
    lr: Path | None


class _Layout(NamedTuple):
    find: Callable[[Path, Split], list[Found]]
    expected: str
    """what the root must hold, for people"""


def folder_items(config: FolderConfig, split: Split) -> list[Found]:
    """Every image of a split, sorted by name; ``lr`` is None when the folder brings none.

    Raises QartsrError for a missing or empty folder, and when only some of its images have an LR file.
    """
    root, key = Path(config.train_root if split == "train" else config.test_root), f"data.images.{split}_root"
    if not root.is_dir():
        raise QartsrError("is not a folder", str(root), f"correct {key}")
    layout = _LAYOUTS[config.layout]
    found = layout.find(root, split)
    if not found:
        expected = layout.expected.format(split=split, div2k=_div2k_kind(split))
        raise QartsrError(f"has no {expected}, which layout {config.layout} expects", str(root), f"correct {key}")
    missing = [item.lr for item in found if item.lr is not None and not item.lr.is_file()]
    if missing and len(missing) < len(found):
        raise QartsrError("is missing, though other images have their LR", str(missing[0]), "complete the folder")
    return [item._replace(lr=None) for item in found] if missing else found


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES) if folder.is_dir() else []


def _plain(root: Path, split: Split) -> list[Found]:
    return [Found(path.stem, path, None) for path in _images(root)]


def _div2k(root: Path, split: Split) -> list[Found]:
    kind = _div2k_kind(split)
    low = root / f"DIV2K_{kind}_LR_bicubic" / "X4"
    return [Found(p.stem, p, low / f"{p.stem}x4.png") for p in _images(root / f"DIV2K_{kind}_HR")]


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
    return [Found(p.stem, p, root / f"{prefix}LR" / p.name) for p in _images(root / f"{prefix}HR")]


_LAYOUTS: dict[str, _Layout] = {
    "plain": _Layout(_plain, "images"),
    "div2k": _Layout(_div2k, "images in DIV2K_{div2k}_HR"),
    "realsr": _Layout(_side_by_side("_HR", "_LR4"), "images named NAME_HR.png"),
    "urban100": _Layout(_side_by_side("_HR", "_LR"), "images named NAME_HR.png"),
    "drealsr": _Layout(_drealsr, "images in HR or {split}_HR"),
}
