"""Windows and pairs: sizes, determinism, and that what chooses the rate is not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from experiments.study.sets import load_inputs, load_windows, structures, write_pairs, write_windows
from qartsr.config.data import BicubicConfig, CalibrateConfig, RealESRGANConfig
from qartsr.config.experiment import TestSetConfig as SetConfig
from qartsr.data.pairs import image_tensor
from qartsr.errors import QartsrError
from qartsr.files import write_json

SETS = {
    "plain": SetConfig(degradation=BicubicConfig(), stands_for="DIV2K_val"),
    "hard": SetConfig(degradation=RealESRGANConfig(), stands_for="RealSR"),
    "drawn": SetConfig(images="structures", degradation=BicubicConfig(), stands_for="Urban100"),
}


@pytest.fixture()
def data(tmp_path: Path) -> Path:
    """One train and one test image; the test image is flat but for its lower right corner."""
    noise = torch.randint(0, 255, (64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    test = torch.full((128, 160, 3), 90, dtype=torch.uint8)
    test[64:, 96:] = noise
    folder = tmp_path / "data"
    folder.mkdir()
    for name, image in (("train", noise), ("hr", test), ("lr", test[::4, ::4])):
        Image.fromarray(image.numpy()).save(folder / f"{name}.png")
    train = {"name": "train", "file": "train.png", "width": 64, "height": 64}
    write_json(
        folder / "manifest.json",
        {"name": "x", "train": [train], "test": [{"name": "t", "hr": "hr.png", "lr": "lr.png"}]},
    )
    return folder


def test_windows_are_where_the_detail_is_and_the_same_every_time(data: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_windows(data, SETS, 64, tmp_path / folder)
    found, again = load_windows(tmp_path / "a", SETS), load_windows(tmp_path / "b", SETS)
    assert found["plain"].names == ("t",) and len(found["drawn"].names) == 3
    assert torch.equal(found["plain"].hr[0], _corner(data))
    for name in SETS:
        assert found[name].hr.shape == found[name].lq.shape and found[name].hr.shape[2:] == (64, 64)
        assert torch.equal(found[name].lq, again[name].lq)
    assert not torch.equal(found["plain"].lq, found["hard"].lq)


def test_a_window_larger_than_the_image_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match="smaller than a window of 144"):
        write_windows(data, SETS, 144, tmp_path / "a")


def test_seeds_draw_other_pairs_and_the_last_quarter_is_kept_apart(data: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        write_pairs(data, CalibrateConfig(pairs=8, lr_size=8), BicubicConfig(), seed, tmp_path)
    trained, held = load_inputs(tmp_path, 0)
    assert trained.shape == (6, 3, 32, 32) and held.shape == (2, 3, 32, 32)
    assert not torch.equal(trained, load_inputs(tmp_path, 1)[0])


def test_drawn_pictures_are_full_of_edges() -> None:
    for picture in structures(64).values():
        assert picture.shape == (3, 64, 64) and float(picture.float().std()) > 20


def _corner(data: Path) -> torch.Tensor:
    return image_tensor(Image.open(data / "hr.png"))[:, 64:, 96:]
