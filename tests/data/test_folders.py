from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from qartsr.config.data import DataConfig, FolderConfig
from qartsr.data import write_dataset
from qartsr.data.folders import folder_items
from qartsr.errors import QartsrError
from tests.data.conftest import Painter

Layout = Literal["div2k", "realsr", "urban100", "drealsr", "plain"]

# Layout -> root, HR and LR of one image in each split, as the data sets are published.
FILES: dict[Layout, dict[str, tuple[str, str]]] = {
    "div2k": {
        "train": ("DIV2K_train_HR/0001.png", "DIV2K_train_LR_bicubic/X4/0001x4.png"),
        "test": ("DIV2K_valid_HR/0801.png", "DIV2K_valid_LR_bicubic/X4/0801x4.png"),
    },
    "realsr": {
        "train": ("Canon_001_HR.png", "Canon_001_LR4.png"),
        "test": ("Nikon_001_HR.png", "Nikon_001_LR4.png"),
    },
    "urban100": {
        "train": ("img_001_SRF_4_HR.png", "img_001_SRF_4_LR.png"),
        "test": ("img_002_SRF_4_HR.png", "img_002_SRF_4_LR.png"),
    },
    "drealsr": {
        "train": ("train_HR/a.png", "train_LR/a.png"),
        "test": ("HR/panasonic_1_x1.png", "LR/panasonic_1_x1.png"),
    },
}


def config(root: Path, layout: Layout) -> DataConfig:
    return DataConfig(images=FolderConfig(layout=layout, train_root=str(root / "train"), test_root=str(root / "test")))


@pytest.fixture(params=FILES)
def layout(request: pytest.FixtureRequest) -> Layout:
    name: Layout = request.param
    return name


def build(root: Path, layout: Layout, paint: Painter, lr: bool = True) -> DataConfig:
    for seed, (split, (high, low)) in enumerate(FILES[layout].items()):
        paint(root / split / high, 50, 36, seed)
        if lr:
            paint(root / split / low, 12, 9, 10 + seed)
    return config(root, layout)


def test_given_lr_is_used_and_cropped_with_its_hr(tmp_path: Path, layout: Layout, paint: Painter) -> None:
    manifest = write_dataset(build(tmp_path, layout, paint), 0, tmp_path / "out")
    high, low = (tmp_path / "test" / name for name in FILES[layout]["test"])
    [entry] = manifest["test"]
    assert (manifest["name"], manifest["degradation"]) == (layout, "given")
    assert entry["source"] == high.name and entry["lr_origin"] == low.name
    hr, lr = (np.array(Image.open(tmp_path / "out" / entry[key])) for key in ("hr", "lr"))
    np.testing.assert_array_equal(hr, np.array(Image.open(high))[:32, :48])
    np.testing.assert_array_equal(lr, np.array(Image.open(low))[:8, :12])


def test_missing_lr_is_an_error_that_names_it(tmp_path: Path, layout: Layout, paint: Painter) -> None:
    """Made by bicubic in silence, a real benchmark would become another one."""
    low = Path(FILES[layout]["test"][1]).name
    with pytest.raises(QartsrError, match=rf"{low}: is not there.* the LR of .*; complete .*data.images.lr to made"):
        write_dataset(build(tmp_path, layout, paint, lr=False), 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("layout", "high", "low"),
    [
        ("drealsr", "test_HR/DSC_1286_x1.png", "test_LR/DSC_1286_x4.png"),
        ("div2k", "DIV2K_valid_HR/0801.png", "DIV2K_valid_LR_bicubic/x4/0801x4.png"),
        ("div2k", "DIV2K_valid_HR/0801.png", "DIV2K_valid_LR_bicubic/X4/0801.png"),
    ],
)
def test_other_spellings_of_lr_are_found(layout: Layout, high: str, low: str, tmp_path: Path, paint: Painter) -> None:
    paint(tmp_path / high, 32, 32)
    paint(tmp_path / low, 8, 8)
    (tmp_path / high).with_name(f"._{Path(high).name}").write_bytes(b"what macOS leaves")
    found = folder_items(FolderConfig(layout=layout, train_root="-", test_root=str(tmp_path)), "test")
    assert [item.lr for item in found] == [tmp_path / low]


@pytest.mark.parametrize("low", ["Canon_001_LR.png", "Canon_001_LR2.png"])
def test_lr_of_another_name_or_scale_is_not_taken(low: str, tmp_path: Path, paint: Painter) -> None:
    paint(tmp_path / "Canon_001_HR.png", 32, 32)
    paint(tmp_path / low, 8, 8)
    with pytest.raises(QartsrError, match=r"Canon_001_LR4\.png: is not there"):
        folder_items(FolderConfig(layout="realsr", train_root="-", test_root=str(tmp_path)), "test")


def test_lr_is_made_where_that_is_wished(tmp_path: Path, layout: Layout, paint: Painter) -> None:
    data = build(tmp_path, layout, paint)
    wished = data.model_copy(update={"images": data.images.model_copy(update={"lr": "made"})})
    [entry] = write_dataset(wished, 0, tmp_path / "out")["test"]
    assert entry["lr_origin"] == "bicubic"
    hr = Image.open(tmp_path / "out" / entry["hr"])
    made = np.array(Image.open(tmp_path / "out" / entry["lr"]))
    np.testing.assert_array_equal(made, np.array(hr.resize((12, 8), Image.Resampling.BICUBIC)))


def test_lr_of_the_wrong_size_is_refused(tmp_path: Path, layout: Layout, paint: Painter) -> None:
    data = build(tmp_path, layout, paint)
    low = FILES[layout]["test"][1]
    paint(tmp_path / "test" / low, 11, 9)
    with pytest.raises(QartsrError, match=rf"{Path(low).name}: is 11 x 9, not 12 x 9, a quarter of its HR of 50 x 36"):
        write_dataset(data, 0, tmp_path / "out")


def test_lr_for_some_images_only_is_refused(tmp_path: Path, layout: Layout, paint: Painter) -> None:
    data = build(tmp_path, layout, paint)
    high = tmp_path / "test" / FILES[layout]["test"][0]
    paint(high.with_name(f"more_{high.name}"), 48, 32, 5)
    with pytest.raises(QartsrError, match="is not there"):
        write_dataset(data, 0, tmp_path / "out")


def test_an_empty_root_says_what_the_layout_expects(tmp_path: Path, layout: Layout) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
    with pytest.raises(QartsrError, match=rf"has no images .*layout {layout} expects; correct data.images.train_root"):
        write_dataset(config(tmp_path, layout), 0, tmp_path / "out")
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(QartsrError, match=r"train: is not a folder; correct data.images.train_root"):
        write_dataset(config(tmp_path, layout), 0, tmp_path / "out")


def test_drealsr_as_published_has_test_folders(tmp_path: Path, paint: Painter) -> None:
    paint(tmp_path / "test" / "test_HR" / "a.png", 32, 32)
    low = paint(tmp_path / "test" / "test_LR" / "a.png", 8, 8)
    found = folder_items(FolderConfig(layout="drealsr", train_root="-", test_root=str(tmp_path / "test")), "test")
    assert [item.lr for item in found] == [low]


def test_plain_folders_are_read_in_order_of_name_and_skip_other_files(tmp_path: Path, paint: Painter) -> None:
    for name, seed in (("b.png", 1), ("a.JPG", 2), ("c.bmp", 3)):
        paint(tmp_path / "train" / name, 20, 20, seed)
    (tmp_path / "train" / "notes.txt").write_text("no image")
    paint(tmp_path / "test" / "z.png", 16, 16, 4)
    manifest = write_dataset(config(tmp_path, "plain"), 0, tmp_path / "out")
    assert [entry["name"] for entry in manifest["train"]] == ["a", "b", "c"]
    assert [entry["name"] for entry in manifest["test"]] == ["z"]


@pytest.mark.parametrize(
    ("high", "low"),
    [
        *(("a_HR", "a_LR4"), ("0801", "0801x4"), ("b_x1", "b_x4"), ("c", "c_lr"), ("d_hr", "d_LR4"), ("e-gt", "e-lq")),
        *(
            ("HR_f", "LR_f"),
            ("g.HR", "g.LR"),
            ("hHR", "hLR"),
            ("i_HR", "i"),
            ("k", "k_LRBI_x4"),
            ("l_SRF_4_HR", "l_SRF_4_LR"),
        ),
    ],
)
def test_pairs_in_a_plain_folder_are_not_all_taken_for_hr(high: str, low: str, tmp_path: Path, paint: Painter) -> None:
    for name, side in ((high, 64), (low, 16), ("matrix4", 64)):
        paint(tmp_path / "set" / f"{name}.png", side, side)
    with pytest.raises(QartsrError, match=rf"{low}.png: looks like the LR of {high}.png"):
        folder_items(FolderConfig(layout="plain", train_root="-", test_root=str(tmp_path / "set")), "test")


@pytest.mark.parametrize("low", ["LR/a.png", "test_LR/a_x4.png", "Set5_LR_bicubic/X4/ax4.png", "HR/lq/a.png"])
def test_lr_beside_a_plain_folder_is_not_passed_over(low: str, tmp_path: Path, paint: Painter) -> None:
    for file, side in (("HR/a.png", 64), (low, 16), ("lrs/b.png", 16), ("LR_of_others/a.png", 60)):
        paint(tmp_path / file, side, side)
    images = FolderConfig(layout="plain", train_root=str(tmp_path / "HR"), test_root=str(tmp_path / "HR"))
    with pytest.raises(QartsrError, match=rf"{low}: looks like the LR of .*HR/a.png, .* set data.images.lr to made"):
        folder_items(images, "test")
    assert len(folder_items(images, "train")) == 1
    assert len(folder_items(images.model_copy(update={"lr": "made"}), "test")) == 1


def test_one_beside_many_may_be_another_picture(
    tmp_path: Path, paint: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers are names, and other sets have them too; what may not be looked into is no concern of the run."""
    for file, side in (("HR/0001.png", 64), ("HR/0002.png", 64), ("lrs/0001.png", 16)):
        paint(tmp_path / file, side, side)
    (tmp_path / "LR").mkdir()
    listed = Path.iterdir

    def forbidden(folder: Path) -> Iterator[Path]:
        if folder.name == "LR":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", forbidden)
    images = FolderConfig(layout="plain", train_root="-", test_root=str(tmp_path / "HR"))
    assert len(folder_items(images, "test")) == 2
    paint(tmp_path / "lrs" / "0002.png", 16, 16)
    with pytest.raises(QartsrError, match="looks like the LR of"):
        folder_items(images, "test")


def test_an_upscaled_picture_beside_its_own_is_no_lr(tmp_path: Path, paint: Painter) -> None:
    for name, side in (("a", 16), ("a_x4", 64), ("ape", 32), ("apex2", 40)):
        paint(tmp_path / "set" / f"{name}.png", side, side)
    found = folder_items(FolderConfig(layout="plain", train_root="-", test_root=str(tmp_path / "set")), "test")
    assert [item.name for item in found] == ["a", "a_x4", "ape", "apex2"]


def test_two_images_of_one_name_are_refused(tmp_path: Path, paint: Painter) -> None:
    for name in ("train/a.png", "train/a.bmp", "test/b.png"):
        paint(tmp_path / name, 16, 16)
    with pytest.raises(QartsrError, match="split train: has 2 images named 'a'"):
        write_dataset(config(tmp_path, "plain"), 0, tmp_path / "out")


def test_the_same_image_in_both_splits_is_refused(tmp_path: Path, paint: Painter) -> None:
    paint(tmp_path / "train" / "a.png", 32, 32)
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    (tmp_path / "test" / "a.png").rename(tmp_path / "test" / "b.png")
    with pytest.raises(QartsrError, match="train image 'a' is test image 'b'; keep every image in one split"):
        write_dataset(config(tmp_path, "plain"), 0, tmp_path / "out")


def test_real_pairs_of_drealsr(tmp_path: Path, root: Path, paint: Painter) -> None:
    fixtures = Path(os.environ.get("QARTSR_FIXTURES", root.parent / "shared" / "fixtures"))
    folder = fixtures.parent / "data" / "drealsr"
    if not folder.is_dir():
        pytest.skip(f"the DRealSR crops are not at {folder}; set QARTSR_FIXTURES to the folder fixtures/ beside data/")
    for kind in ("HR", "LR"):
        (tmp_path / "test" / kind).mkdir(parents=True)
        for path in sorted((folder / kind).iterdir())[:2]:
            shutil.copy(path, tmp_path / "test" / kind)
    paint(tmp_path / "train" / "HR" / "a.png", 16, 16)
    for entry in write_dataset(config(tmp_path, "drealsr"), 0, tmp_path / "out")["test"]:
        assert (entry["width"], entry["height"]) == (512, 512)
        for key in ("HR", "LR"):
            given, kept = folder / key / f"{entry['name']}.png", tmp_path / "out" / entry[key.lower()]
            np.testing.assert_array_equal(np.array(Image.open(kept)), np.array(Image.open(given)))
