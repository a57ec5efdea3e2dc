from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qartsr.config.data import ClipsConfig, DataConfig, FolderConfig, PhotographsConfig, RealESRGANConfig
from qartsr.data import PHOTOGRAPHS, load_pairs, write_dataset
from qartsr.data.photographs import photograph_file
from qartsr.errors import QartsrError
from tests.data.conftest import SMALL, Painter


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_manifest_lists_every_file_with_its_hash_and_nothing_else(small_data: Path) -> None:
    manifest = json.loads((small_data / "manifest.json").read_text())
    assert (manifest["name"], manifest["scale"], manifest["degradation"]) == ("photographs", 4, "bicubic")
    hashes = {entry["file"]: entry["sha256"] for entry in manifest["train"]}
    for entry in manifest["test"]:
        hashes |= {entry["hr"]: entry["sha256_hr"], entry["lr"]: entry["sha256_lr"]}
    made = contents(small_data)
    made.pop("manifest.json")
    assert {name: hashlib.sha256(data).hexdigest() for name, data in made.items()} == hashes


def test_frames_of_a_clip_are_test_images_of_one_set(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="clips need the extra video")
    clips = ClipsConfig(files=("photographs/clips/towers.mkv",), frames=2)
    config = DataConfig(images=PhotographsConfig(train=("coins",), test=("brick",)), clips=clips)
    test = write_dataset(config, 0, tmp_path / "out")["test"]
    assert [entry["name"] for entry in test] == ["brick", "towers-000", "towers-001"]
    assert [(entry["clip"], entry["set"]) for entry in test[1:]] == [("towers", "towers")] * 2
    hr, lr = (Image.open(tmp_path / "out" / test[2][kind]) for kind in ("hr", "lr"))
    assert hr.size == (720, 400)
    np.testing.assert_array_equal(np.array(lr), np.array(hr.resize((180, 100), Image.Resampling.BICUBIC)))


def test_the_manifest_carries_licence_credit_and_source(small_data: Path) -> None:
    manifest = json.loads((small_data / "manifest.json").read_text())
    for entry in manifest["train"] + manifest["test"]:
        record = PHOTOGRAPHS[entry["name"]]
        assert (entry["licence"], entry["credit"], entry["source"]) == (record.licence, record.credit, record.source)


def test_splits_share_no_image(small_data: Path) -> None:
    manifest = json.loads((small_data / "manifest.json").read_text())
    names = [{entry["name"] for entry in manifest[split]} for split in ("train", "test")]
    assert not names[0] & names[1] and all(names)


def test_hr_is_the_top_left_of_the_photograph_with_sides_of_16(small_data: Path) -> None:
    manifest = json.loads((small_data / "manifest.json").read_text())
    for entry in manifest["train"] + manifest["test"]:
        source = np.array(Image.open(photograph_file(entry["name"])).convert("RGB"))
        height, width = (side // 16 * 16 for side in source.shape[:2])
        hr = np.array(Image.open(small_data / entry.get("file", entry.get("hr"))))
        assert (entry["height"], entry["width"]) == (height, width)
        np.testing.assert_array_equal(hr, source[:height, :width])


def test_lr_is_pillow_bicubic_of_hr_and_a_quarter_as_large(small_data: Path) -> None:
    hr, lr = (Image.open(small_data / "test" / kind / "coffee.png") for kind in ("HR", "LR"))
    assert hr.size == (4 * lr.width, 4 * lr.height)
    expected = hr.resize((hr.width // 4, hr.height // 4), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.array(lr), np.array(expected))


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_folder_is_what_load_pairs_reads(small_data: Path, split: str) -> None:
    for pair in load_pairs(small_data, split):  # type: ignore[arg-type]
        assert pair.hr.shape == pair.lq.shape and not any(side % 16 for side in pair.hr.shape[1:])


def test_same_seed_same_bytes(small_data: Path, tmp_path: Path) -> None:
    write_dataset(SMALL, 0, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(small_data)


def test_the_seed_decides_real_esrgan(tmp_path: Path, paint: Painter) -> None:
    for split in ("train", "test"):
        paint(tmp_path / split / f"{split}.png", 64, 64, len(split))
    roots = FolderConfig(train_root=str(tmp_path / "train"), test_root=str(tmp_path / "test"))
    config = DataConfig(images=roots, degradation=RealESRGANConfig())
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        write_dataset(config, seed, tmp_path / name)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a["test/HR/test.png"] == c["test/HR/test.png"] and a["test/LR/test.png"] != c["test/LR/test.png"]


def test_a_failure_leaves_the_old_folder_and_no_half_of_a_new_one(tmp_path: Path, paint: Painter) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.txt").write_text("kept")
    for name in ("train/a.png", "test/b.png"):
        paint(tmp_path / name, 32, 32)
    paint(tmp_path / "test" / "small.png", 40, 12)
    roots = FolderConfig(train_root=str(tmp_path / "train"), test_root=str(tmp_path / "test"))
    with pytest.raises(QartsrError, match=r"small\.png: is 40 x 12, smaller than 16 pixels"):
        write_dataset(DataConfig(images=roots), 0, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "test", "train"]
    assert contents(out) == {"old.txt": b"kept"}


def test_a_new_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("gone")
    write_dataset(SMALL, 0, tmp_path / "out")
    assert not (tmp_path / "out" / "old.txt").exists()


def test_a_photograph_named_twice_is_refused(tmp_path: Path) -> None:
    images = PhotographsConfig(train=("coins", "coins"), test=("coffee",))
    with pytest.raises(QartsrError, match="has 2 images named 'coins'"):
        write_dataset(DataConfig(images=images), 0, tmp_path / "out")
