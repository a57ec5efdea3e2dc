"""The data folder: train and test images, the test images' LR, and a manifest with hashes, licences and sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from qartsr.config.data import ClipsConfig, DataConfig, DegradationConfig, FolderConfig, PhotographsConfig
from qartsr.data.degradation import degrade
from qartsr.data.folders import Split, folder_items
from qartsr.data.pairs import image_tensor
from qartsr.data.photographs import PHOTOGRAPHS, photograph_file
from qartsr.errors import QartsrError
from qartsr.files import replacing_folder, sha256_file, write_json
from qartsr.images import SCALE, read_rgb

_MULTIPLE = 16


class Item(NamedTuple):
    """One source image; ``lr`` where the dataset brings its own."""

    name: str
    hr: Path
    lr: Path | None
    origin: dict[str, str]
    """licence, credit and source, for the manifest"""


def write_dataset(config: DataConfig, seed: int, out: Path) -> dict[str, Any]:
    """Make the folder (it appears whole or not at all) and return its manifest.

    HR is cropped at the top left to sides that are multiples of 16. Raises QartsrError naming the image that is
    missing, unreadable, too small, of the wrong depth, twice in a split or in both, or whose LR does not fit.
    """
    train, test = _items(config.images, "train"), _items(config.images, "test")
    with replacing_folder(out) as folder:
        manifest = {
            "name": "photographs" if isinstance(config.images, PhotographsConfig) else config.images.layout,
            "scale": SCALE,
            "degradation": config.degradation.kind if config.clips or any(not item.lr for item in test) else "given",
            "train": [_train(item, folder) for item in train],
            "test": [
                *(_test(item, config.degradation, seed + n, folder) for n, item in enumerate(test)),
                *(_frames(config.clips, config.degradation, folder) if config.clips else ()),
            ],
        }
        _refuse_overlap(manifest)
        write_json(folder / "manifest.json", manifest)
    return manifest


def _items(images: PhotographsConfig | FolderConfig, split: Split) -> list[Item]:
    if isinstance(images, PhotographsConfig):
        items = [_bundled(name) for name in (images.train if split == "train" else images.test)]
    else:
        origin = {"licence": "see the dataset's own terms", "credit": images.layout}
        items = [Item(f.name, f.hr, f.lr, {**origin, "source": f.hr.name}) for f in folder_items(images, split)]
    name, times = Counter(item.name for item in items).most_common(1)[0]
    if times > 1:
        raise QartsrError(f"has {times} images named {name!r}", f"data.images, split {split}", "rename or remove one")
    return items


def _bundled(name: str) -> Item:
    path, record = photograph_file(name), PHOTOGRAPHS[name]
    origin = {"licence": record.licence, "credit": record.credit, "source": record.source, "set": record.set}
    return Item(name, path, None, origin)


def _train(item: Item, root: Path) -> dict[str, Any]:
    hr = _cropped(read_rgb(item.hr), item.hr)
    return _entry(item, hr) | _saved(root, "file", "sha256", f"train/{item.name}.png", hr)


def _test(item: Item, degradation: DegradationConfig, seed: int, root: Path) -> dict[str, Any]:
    whole = read_rgb(item.hr)
    hr = _cropped(whole, item.hr)
    if item.lr is None:
        low = degrade(image_tensor(hr), degradation, torch.Generator().manual_seed(seed))
        lr = Image.fromarray(low.permute(1, 2, 0).numpy())
    else:
        lr = _given(item.lr, whole.size).crop((0, 0, hr.width // SCALE, hr.height // SCALE))
    high = _saved(root, "hr", "sha256_hr", f"test/HR/{item.name}.png", hr)
    made = {"lr_origin": degradation.kind if item.lr is None else item.lr.name}
    return _entry(item, hr) | made | high | _saved(root, "lr", "sha256_lr", f"test/LR/{item.name}.png", lr)


def _frames(config: ClipsConfig, degradation: DegradationConfig, root: Path) -> Iterator[dict[str, Any]]:
    """The frames of clips, in order: each is a test image of the set and clip named like its file."""
    from qartsr.clips.source import frames, survey  # PyAV: there only with its extra

    for number, file in enumerate(map(Path, config.files)):
        origin = {"licence": "see docs/data.md", "credit": file.stem, "source": file.name}
        for place, frame in enumerate(islice(frames(survey(file)), config.frames)):
            hr = _cropped(Image.fromarray(frame), file)
            low = degrade(image_tensor(hr), degradation, torch.Generator().manual_seed(number))  # a clip's dice are one
            lr, name = Image.fromarray(low.permute(1, 2, 0).numpy()), f"{file.stem}-{place:03d}"
            entry = {
                "name": name,
                "width": hr.width,
                "height": hr.height,
                **origin,
                "set": file.stem,
                "clip": file.stem,
            }
            high = _saved(root, "hr", "sha256_hr", f"test/HR/{name}.png", hr)
            low_file = _saved(root, "lr", "sha256_lr", f"test/LR/{name}.png", lr)
            yield entry | {"lr_origin": degradation.kind} | high | low_file


def _given(path: Path, size: tuple[int, int]) -> Image.Image:
    lr = read_rgb(path)
    width, height = (side // SCALE for side in size)
    if lr.size != (width, height):
        what = f"is {lr.width} x {lr.height}, not {width} x {height}, a quarter of its HR of {size[0]} x {size[1]}"
        raise QartsrError(what, str(path), "give pairs of scale 4")
    return lr


def _entry(item: Item, hr: Image.Image) -> dict[str, Any]:
    return {"name": item.name, "width": hr.width, "height": hr.height, **item.origin}


def _saved(root: Path, key: str, hash_key: str, relative: str, image: Image.Image) -> dict[str, str]:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="PNG")
    return {key: relative, hash_key: sha256_file(path)}


def _cropped(image: Image.Image, path: Path) -> Image.Image:
    """Top-left part with sides that the network and LR = HR / 4 can take."""
    width, height = (side - side % _MULTIPLE for side in image.size)
    if not (width and height):
        what = f"is {image.width} x {image.height}, smaller than {_MULTIPLE} pixels"
        raise QartsrError(what, str(path), "remove it")
    return image.crop((0, 0, width, height))


def _refuse_overlap(manifest: dict[str, Any]) -> None:
    """Splits are by image: the same pixels in both would make every figure of the test split too good."""
    train = {entry["sha256"]: entry["name"] for entry in manifest["train"]}
    for entry in manifest["test"]:
        if entry["sha256_hr"] in train:
            what = f"train image {train[entry['sha256_hr']]!r} is test image {entry['name']!r}"
            raise QartsrError(what, "data.images", "keep every image in one split")
