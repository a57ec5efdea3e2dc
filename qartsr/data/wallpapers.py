"""Real photographs out of Debian's wallpaper packages, as a data folder: what weights/sample was trained on."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from qartsr.data.degradation import bicubic
from qartsr.data.pairs import image_tensor
from qartsr.data.photographs import PHOTOGRAPHS, photograph_file
from qartsr.errors import QartsrError
from qartsr.files import read_json, replacing_folder, sha256_file, write_json
from qartsr.images import SCALE

_BUNDLED = (
    "camera", "coins", "rocket", "brick", "grass", "gravel", "immunohistochemistry", "hubble_deep_field", "retina",
    "china", "flower", "grace_hopper",
)  # fmt: skip


def write_wallpapers(table: Path, out: Path) -> dict[str, Any]:
    """Make the data folder; returns its manifest.

    ``table``: JSON list of name, split, package, file, sha256, reduce (box filter, because wallpapers are soft at full
    size), licence and credit. The train split has the photographs of the wheels beside them. Raises QartsrError where
    apt-get or dpkg-deb is missing or fails, or a file is not the one that was used.
    """
    entries: list[dict[str, Any]] = read_json(table)
    manifest: dict[str, Any] = {"name": "wallpapers", "scale": SCALE, "degradation": "bicubic", "train": [], "test": []}
    with tempfile.TemporaryDirectory() as scratch, replacing_folder(out) as folder:
        root = _unpacked(sorted({entry["package"] for entry in entries}), Path(scratch))
        for entry in entries:
            path = root / entry["file"]
            if not path.is_file() or sha256_file(path) != entry["sha256"]:
                what = f"{entry['file']} of {entry['package']} is not the file that was used"
                raise QartsrError(what, str(table), "take the package of Debian 12, or record the new hash")
            with Image.open(path) as image:
                _add(manifest, folder, entry, image.convert("RGB").reduce(entry["reduce"]))
        for name in _BUNDLED:
            record = PHOTOGRAPHS[name]
            entry = {"name": name, "split": "train", "licence": record.licence, "credit": record.credit}
            with Image.open(photograph_file(name)) as image:
                _add(manifest, folder, {**entry, "package": record.package, "file": record.file}, image.convert("RGB"))
        write_json(folder / "manifest.json", manifest)
    return manifest


def _unpacked(packages: list[str], scratch: Path) -> Path:
    """The packages' files; nothing is installed, no script of theirs runs."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise QartsrError(f"{tool} is missing", "the photographs of the recipe", "run this on Debian or Ubuntu")
    _run(["apt-get", "download", *packages], scratch)
    for package in sorted(scratch.glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(scratch / "root")], scratch)
    return scratch / "root"


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[-200:]
        raise QartsrError(f"{command[0]} failed ({said})", " ".join(command), "run `apt-get update`, then again")


def _add(manifest: dict[str, Any], root: Path, entry: dict[str, Any], image: Image.Image) -> None:
    image = image.crop((0, 0, image.width // 16 * 16, image.height // 16 * 16))
    facts = {key: entry[key] for key in ("name", "licence", "credit")}
    facts |= {"width": image.width, "height": image.height, "source": f"{entry['file']} of {entry['package']}"}
    if entry["split"] == "train":
        facts |= _saved(root, f"train/{entry['name']}.png", "file", "sha256", image)
    else:
        low = Image.fromarray(bicubic(image_tensor(image)).permute(1, 2, 0).numpy())
        facts |= _saved(root, f"test/HR/{entry['name']}.png", "hr", "sha256_hr", image)
        facts |= _saved(root, f"test/LR/{entry['name']}.png", "lr", "sha256_lr", low)
    manifest[entry["split"]].append(facts)


def _saved(root: Path, relative: str, key: str, hash_key: str, image: Image.Image) -> dict[str, Any]:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="PNG")
    return {key: relative, hash_key: sha256_file(path)}
