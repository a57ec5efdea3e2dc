"""The data folder: train and test photographs, the test images' LR, and a manifest with hashes and licences."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from qartsr.config.data import DataConfig, PhotographsConfig
from qartsr.data.degrade import degrade
from qartsr.data.folders import folder_items
from qartsr.data.pairs import SCALE, image_tensor
from qartsr.data.photographs import PHOTOGRAPHS, photograph_file
from qartsr.errors import QartsrError
from qartsr.files import sha256_file, write_json

_MULTIPLE = 16


class Item(NamedTuple):
    """One source image; ``lr`` where the dataset brings its own."""

    name: str
    hr: Path
    lr: Path | None
    licence: str
    credit: str


def write_dataset(config: DataConfig, seed: int, out: Path) -> dict[str, Any]:
    """Make the folder (it appears whole or not at all) and return its manifest."""
    name, train, test = _items(config)
    temporary = out.with_name(out.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    manifest = {
        "name": name,
        "scale": SCALE,
        "degradation": config.degradation.kind,
        "train": [_train(item, temporary) for item in train],
        "test": [_test(item, config, seed + number, temporary) for number, item in enumerate(test)],
    }
    write_json(temporary / "manifest.json", manifest)
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    return manifest


def _items(config: DataConfig) -> tuple[str, list[Item], list[Item]]:
    images = config.images
    if isinstance(images, PhotographsConfig):
        return "photographs", [_bundled(n) for n in images.train], [_bundled(n) for n in images.test]
    splits = (folder_items(images, "train"), folder_items(images, "test"))
    train, test = ([Item(name, hr, lr, "as its source", images.layout) for name, hr, lr in split] for split in splits)
    return images.layout, train, test


def _bundled(name: str) -> Item:
    record = PHOTOGRAPHS.get(name)
    path = photograph_file(name)
    assert record is not None  # photograph_file refuses unknown names
    return Item(name, path, None, record.licence, record.credit)


def _train(item: Item, root: Path) -> dict[str, Any]:
    image = read_rgb(item.hr)
    image = _cropped(image, item.hr)
    return _entry(item, image, root, {"file": (f"train/{item.name}.png", image)})


def _test(item: Item, config: DataConfig, seed: int, root: Path) -> dict[str, Any]:
    hr = _cropped(read_rgb(item.hr), item.hr)
    if item.lr is None:
        low = degrade(image_tensor(hr), config.degradation, torch.Generator().manual_seed(seed))
        lr = Image.fromarray(low.permute(1, 2, 0).numpy())
    else:
        lr = read_rgb(item.lr).crop((0, 0, hr.width // SCALE, hr.height // SCALE))
    return _entry(item, hr, root, {"hr": (f"test/HR/{item.name}.png", hr), "lr": (f"test/LR/{item.name}.png", lr)})


def _entry(item: Item, image: Image.Image, root: Path, files: dict[str, tuple[str, Image.Image]]) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": item.name, "licence": item.licence, "credit": item.credit}
    entry |= {"width": image.width, "height": image.height}
    for key, (relative, picture) in files.items():
        path = root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, format="PNG")
        entry |= {key: relative, f"sha256_{key}": sha256_file(path)}
    return entry


def read_rgb(path: Path) -> Image.Image:
    """An 8-bit image as RGB. Raises QartsrError for an unreadable file or more than 8 bits per channel."""
    try:
        image = Image.open(path)
        image.load()
    except OSError as error:
        raise QartsrError(f"cannot be read as an image ({error})", str(path), "replace or remove the file") from error
    if image.mode.startswith(("I", "F")):
        raise QartsrError(f"has more than 8 bits per channel ({image.mode})", str(path), "convert it to 8 bits")
    return image.convert("RGB")


def _cropped(image: Image.Image, path: Path) -> Image.Image:
    """Top-left part with sides that the network and LR = HR / 4 can take."""
    width, height = (side - side % _MULTIPLE for side in image.size)
    if not (width and height):
        raise QartsrError(f"is smaller than {_MULTIPLE} pixels", str(path), "remove it")
    return image.crop((0, 0, width, height))


