"""The test split of a data folder, one image at a time."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from qartsr.errors import QartsrError
from qartsr.files import read_object
from qartsr.images import read_image


class Scene(NamedTuple):
    """One test photograph on disk."""

    name: str
    hr_file: Path
    lr_file: Path
    set: str
    """the pictures it is averaged with, beside the mean over all"""
    clip: str = ""
    """the clip whose next frame it is; empty: a photograph"""

    def hr(self) -> Image.Image:
        """The truth, 8-bit RGB, exactly 4 times as wide and high as :meth:`lr`."""
        return read_image(self.hr_file).convert("RGB")

    def lr(self) -> Image.Image:
        """The network's source, 8-bit RGB."""
        return read_image(self.lr_file).convert("RGB")


class Scenes(NamedTuple):
    """A test set."""

    dataset: str
    items: tuple[Scene, ...]

    def sets(self) -> dict[str, tuple[Scene, ...]]:
        """The pictures by set, sets and pictures in manifest order."""
        names = dict.fromkeys(scene.set for scene in self.items)
        return {name: tuple(scene for scene in self.items if scene.set == name) for name in names}


def open_scenes(folder: Path) -> Scenes:
    """Read ``manifest.json`` of the folder that stage ``data`` writes. Raises QartsrError without test images.

    An entry may name its ``set``; one that does not belongs to the set named like the data set (``photographs``).
    """
    manifest = read_object(folder / "manifest.json", "name", "test")
    dataset = str(manifest["name"])
    items = tuple(
        Scene(
            entry["name"], folder / entry["hr"], folder / entry["lr"], entry.get("set", dataset), entry.get("clip", "")
        )
        for entry in manifest["test"]
    )
    if not items:
        raise QartsrError("has no test images", str(folder), "name some under data.images")
    return Scenes(dataset, items)
