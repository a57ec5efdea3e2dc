"""Folders in the layouts of DIV2K, RealSR, Urban100 and DRealSR, or plain folders of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from qartsr.config.data import FolderConfig
from qartsr.errors import QartsrError

Found = tuple[str, Path, Path | None]
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def folder_items(config: FolderConfig, split: Literal["train", "test"]) -> list[Found]:
    """(name, HR, LR or None) of every image, sorted. Raises QartsrError for a missing or empty folder."""
    root = Path(config.train_root if split == "train" else config.test_root)
    if not root.is_dir():
        raise QartsrError("is not a folder", str(root), f"correct data.images.{split}_root")
    found = _LAYOUTS[config.layout](root, split)
    if not found:
        raise QartsrError(f"has no images in {config.layout} layout", str(root), f"correct data.images.{split}_root")
    return found


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES) if folder.is_dir() else []


def _present(path: Path) -> Path | None:
    return path if path.is_file() else None


def _plain(root: Path, split: str) -> list[Found]:
    return [(path.stem, path, None) for path in _images(root)]


def _div2k(root: Path, split: str) -> list[Found]:
    kind = "train" if split == "train" else "valid"
    low = root / f"DIV2K_{kind}_LR_bicubic" / "X4"
    return [(p.stem, p, _present(low / f"{p.stem}x4.png")) for p in _images(root / f"DIV2K_{kind}_HR")]


def _suffixed(high: str, low: str) -> Callable[[Path, str], list[Found]]:
    """HR and LR side by side, told apart by the end of their names."""

    def find(root: Path, split: str) -> list[Found]:
        ours = [path for path in _images(root) if path.stem.endswith(high)]
        stems = [(path, path.stem.removesuffix(high)) for path in ours]
        return [(stem, path, _present(path.with_name(f"{stem}{low}{path.suffix}"))) for path, stem in stems]

    return find


def _drealsr(root: Path, split: str) -> list[Found]:
    prefix = "" if (root / "HR").is_dir() else "test_"
    return [(p.stem, p, _present(root / f"{prefix}LR" / p.name)) for p in _images(root / f"{prefix}HR")]


_LAYOUTS: dict[str, Callable[[Path, str], list[Found]]] = {
    "plain": _plain,
    "div2k": _div2k,
    "realsr": _suffixed("_HR", "_LR4"),
    "urban100": _suffixed("_HR", "_LR"),
    "drealsr": _drealsr,
}
