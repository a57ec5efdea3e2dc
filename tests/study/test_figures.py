"""Figures are pictures of the expected shape, small, and the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from experiments.study.figures import crops, heat_map, rate_quality, schedule, stages
from qartsr.models.sd_unet.schedule import alphas_cumprod


def test_figures_are_small_pictures(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    schedule(alphas_cumprod().tolist(), (999, 499, 1), tmp_path / "schedule.png")
    pictures = [dice.integers(0, 255, (32, 32, 3), np.uint8) for _ in range(3)]
    crops([("one", pictures), ("two", pictures)], ("a", "b", "a title of several lines"), tmp_path / "crops.png")
    first, second = {"vae.encoder.y.z": 0.1, "unet.x.y": 2.0}, {"vae.encoder.y.z": 0.0, "unet.x.y": 0.5}
    heat_map({"a": first, "b": second}, "t", tmp_path / "h.png")
    maps = {name: dice.random((8, 8), np.float32) for name in ("z_l", "eps", "eps_error", "z_h", "z_h_error")}
    save_file({**maps, "image": dice.random((3, 16, 16), np.float32)}, tmp_path / "t.safetensors")
    stages({999: tmp_path / "t.safetensors", 1: tmp_path / "t.safetensors"}, "w2a2", tmp_path / "stages.png")
    rate_quality({"w4a4": [("a", 1.5, 30.0), ("b", 1.9, 40.0)], "w2a2": [("a", 1.0, 20.0)]}, tmp_path / "rates.png")
    rate_quality({"w4a4": []}, tmp_path / "none.png")
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as image:
            assert image.width > 100
        assert path.stat().st_size < 300_000


def test_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        schedule([0.9, 0.5, 0.1], (0, 2), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
