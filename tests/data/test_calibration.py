from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from qartsr.config.data import BicubicConfig, CalibrateConfig, DegradationConfig, RealESRGANConfig
from qartsr.data import Calibration, degrade, load_calibration, write_calibration
from qartsr.errors import QartsrError
from tests.data.test_dataset import contents

CONFIG = CalibrateConfig(pairs=12, lr_size=16)


@pytest.fixture(scope="module", params=["bicubic", "realesrgan"])
def made(request: pytest.FixtureRequest, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind: DegradationConfig = BicubicConfig() if request.param == "bicubic" else RealESRGANConfig()
    out = tmp_path_factory.mktemp(request.param) / "calibration"
    write_calibration(small_data, CONFIG, kind, 3, out)
    return out


def rows(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "manifest.json").read_text())["pairs"]
    return found


def test_shapes(made: Path) -> None:
    pairs = load_calibration(made)
    assert pairs.hr.shape == pairs.lq.shape == (12, 3, 64, 64) and pairs.lr.shape == (12, 3, 16, 16)
    assert sorted(path.name for path in made.iterdir()) == ["contact.png", "manifest.json", "pairs.safetensors"]


def test_hr_is_the_named_box_of_the_named_train_image(made: Path, small_data: Path) -> None:
    for hr, row in zip(load_calibration(made).hr, rows(made), strict=True):
        crop = Image.open(small_data / "train" / f"{row['image']}.png").crop(row["box"])  # type: ignore[arg-type]
        np.testing.assert_array_equal(hr.permute(1, 2, 0).numpy(), np.array(crop))


def test_lq_is_pillow_bicubic_x4_of_lr(made: Path) -> None:
    pairs = load_calibration(made)
    for lr, lq in zip(pairs.lr, pairs.lq, strict=True):
        up = Image.fromarray(lr.permute(1, 2, 0).numpy()).resize((64, 64), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(lq.permute(1, 2, 0).numpy(), np.array(up))


def test_pairs_of_clips_have_the_frame_before_in_the_first_channels(small_data: Path, tmp_path: Path) -> None:
    config = CalibrateConfig(pairs=6, lr_size=16, frames=2, length=3)
    write_calibration(small_data, config, BicubicConfig(), 0, tmp_path / "out")
    pairs = load_calibration(tmp_path / "out")
    assert pairs.hr.shape == (6, 3, 64, 64) and pairs.lq.shape == (6, 6, 64, 64) and pairs.lr.shape == (6, 6, 16, 16)
    for first in (0, 1, 3, 4):  # in a clip what was now is before
        assert torch.equal(pairs.lr[first, 3:], pairs.lr[first + 1, :3])
        assert torch.equal(pairs.lq[first, 3:], pairs.lq[first + 1, :3])
    assert not torch.equal(pairs.lr[2, 3:], pairs.lr[3, :3])
    up = Image.fromarray(pairs.lr[4, 3:].permute(1, 2, 0).numpy()).resize((64, 64), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(pairs.lq[4, 3:].permute(1, 2, 0).numpy(), np.array(up))
    assert [(row["clip"], row["frame"]) for row in rows(tmp_path / "out")] == [(c, f) for c in (0, 1) for f in range(3)]


def test_bicubic_lr_is_cut_from_the_whole_images_lr(small_data: Path, tmp_path: Path) -> None:
    write_calibration(small_data, CONFIG, BicubicConfig(), 0, tmp_path / "out")
    for lr, row in zip(load_calibration(tmp_path / "out").lr, rows(tmp_path / "out"), strict=True):
        whole = Image.open(small_data / "train" / f"{row['image']}.png")
        low = whole.resize((whole.width // 4, whole.height // 4), Image.Resampling.BICUBIC)
        box = [side // 4 for side in row["box"]]  # type: ignore[attr-defined]
        np.testing.assert_array_equal(lr.permute(1, 2, 0).numpy(), np.array(low.crop(box)))  # type: ignore[arg-type]


def test_every_pair_can_be_made_again_from_its_own_seed(small_data: Path, tmp_path: Path) -> None:
    """A pair depends on its seed only: more pairs leave the first ones as they are."""
    for pairs in (3, 5):
        config = CalibrateConfig(pairs=pairs, lr_size=16)
        write_calibration(small_data, config, RealESRGANConfig(), 3, tmp_path / str(pairs))
    few, many = (load_calibration(tmp_path / name) for name in ("3", "5"))
    assert all(torch.equal(a, b[:3]) for a, b in zip(few, many, strict=True))
    assert len({row["seed"] for row in rows(tmp_path / "5")}) == 5


def test_the_largest_seed_is_one(small_data: Path, tmp_path: Path) -> None:
    write_calibration(small_data, CalibrateConfig(pairs=2, lr_size=16), BicubicConfig(), 2**62, tmp_path / "made")
    assert len({row["seed"] for row in rows(tmp_path / "made")}) == 2


def test_same_seed_same_bytes_other_seed_other_crops(made: Path, small_data: Path, tmp_path: Path) -> None:
    kind: DegradationConfig = RealESRGANConfig() if "realesrgan" in str(made) else BicubicConfig()
    for seed in (3, 4):
        write_calibration(small_data, CONFIG, kind, seed, tmp_path / str(seed))
    assert contents(tmp_path / "3") == contents(made)
    assert rows(tmp_path / "4") != rows(made)


def test_flat_regions_are_rare(tmp_path: Path, small_data: Path) -> None:
    """Half of a made-up image is flat: random crops would be wholly flat 3 times out of 8, best of three 1 in 20."""
    pixels = np.full((160, 512, 3), 128, np.uint8)
    pixels[:, 256:] = np.random.default_rng(0).integers(0, 256, (160, 256, 3))
    (tmp_path / "data" / "train").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "data" / "train" / "half.png")
    manifest = {"train": [{"name": "half", "file": "train/half.png"}], "test": []}
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(manifest))
    write_calibration(tmp_path / "data", CalibrateConfig(pairs=100, lr_size=16), BicubicConfig(), 0, tmp_path / "out")
    flat = [float(hr.float().std()) == 0 for hr in load_calibration(tmp_path / "out").hr]
    random_share = (256 - 64 + 4) / (512 - 64 + 4)
    assert np.mean(flat) == pytest.approx(random_share**3, abs=0.07)


def test_an_image_smaller_than_the_crop_is_named(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match=r"coins is 384 x 288, smaller than a crop of 320 x 320 .*lower calibrate"):
        write_calibration(small_data, CalibrateConfig(pairs=1, lr_size=80), BicubicConfig(), 0, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_contact_sheet_shows_upsampled_lr_and_hr(made: Path) -> None:
    pairs, sheet = load_calibration(made), np.array(Image.open(made / "contact.png"))
    assert sheet.shape == (2 * 68, 8 * 132, 3)
    top, left = 68, 132  # the tenth pair: second row, second column
    np.testing.assert_array_equal(sheet[top : top + 64, left : left + 64], pairs.lq[9].permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(sheet[top : top + 64, left + 64 : left + 128], pairs.hr[9].permute(1, 2, 0).numpy())


def test_real_esrgan_degrades_the_crop(small_data: Path, tmp_path: Path) -> None:
    """Replays the documented draws: image, three places, then the degradation, all from the pair's seed."""
    write_calibration(small_data, CalibrateConfig(pairs=1, lr_size=16), RealESRGANConfig(), 5, tmp_path / "out")
    pairs, [row] = load_calibration(tmp_path / "out"), rows(tmp_path / "out")
    generator = torch.Generator().manual_seed(row["seed"])  # type: ignore[arg-type]
    for _ in range(7):
        torch.randint(2, (1,), generator=generator)
    assert torch.equal(pairs.lr[0], degrade(pairs.hr[0], RealESRGANConfig(), generator))


GOOD = Calibration(
    torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
    torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
    torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"hr": GOOD.hr, "lr": GOOD.lr}, "not a calibration set"),
        (GOOD._replace(hr=GOOD.hr.float())._asdict(), "not 8-bit"),
        (GOOD._replace(hr=GOOD.hr[:1])._asdict(), "do not fit"),
        (GOOD._replace(lq=GOOD.lq[:, :, :32].contiguous())._asdict(), "do not fit"),
        (GOOD._replace(lr=GOOD.lr[:, :1].contiguous())._asdict(), "LR of shape"),
        (Calibration(*(t[:0] for t in GOOD))._asdict(), "LR of shape"),
    ],
)
def test_a_set_that_does_not_fit_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], words: str) -> None:
    save_file(tensors, tmp_path / "pairs.safetensors")
    with pytest.raises(QartsrError, match=f"{words}.*; run the calibrate stage again"):
        load_calibration(tmp_path)


@pytest.mark.parametrize("data", [None, b"not safetensors"])
def test_missing_or_damaged_files_are_refused(tmp_path: Path, data: bytes | None) -> None:
    if data:
        (tmp_path / "pairs.safetensors").write_bytes(data)
    with pytest.raises(QartsrError, match="not a calibration set"):
        load_calibration(tmp_path)
