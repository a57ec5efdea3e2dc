"""What the benchmark of a large picture says of two tilings, and of a process that is killed."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.large_picture import Run, as_markdown, difference, mosaic, upscale


def test_a_seam_is_the_worst_column(tmp_path: Path) -> None:
    one = np.random.default_rng(0).integers(20, 200, (300, 40, 3), np.uint8)  # taller than a strip
    other = one.copy()
    other[:, 17] += 6
    other[299] += 3
    for name, pixels in (("one", one), ("other", other)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    found = difference(tmp_path / "one.png", tmp_path / "other.png")
    change = np.abs(one.astype(float) - other)
    assert found["most"] == 9 and found["psnr"] == pytest.approx(10 * math.log10(255**2 / (change**2).mean()))
    assert found["column_worst"] == pytest.approx(change.mean((0, 2)).max())
    assert found["column_worst"] > 5 * found["column_mean"]
    assert found["row_worst"] == pytest.approx(change.mean((1, 2)).max())
    assert difference(tmp_path / "one.png", tmp_path / "one.png")["psnr"] == math.inf


def test_the_mosaic_is_the_photographs(root: Path) -> None:
    made = np.asarray(mosaic(600))
    first, second = sorted((root / "photographs").glob("*.webp"))[:2]
    assert np.array_equal(made[:512, :512], np.asarray(Image.open(first).convert("RGB")))
    assert np.array_equal(made[:512, 512:], np.asarray(Image.open(second).convert("RGB"))[:, :88])


def test_a_killed_command_is_known_as_one(tmp_path: Path) -> None:
    run = upscale(tmp_path / "in.png", tmp_path / "out.png", [], kill_after=0.1)
    assert run.status == -signal.SIGKILL and 0.1 <= run.seconds < 30 and run.peak > 0
    assert upscale(tmp_path / "in.png", tmp_path / "out.png", ["--model", str(tmp_path)]).status == 1


def test_the_page_says_what_was_kept_and_whether_it_is_the_same() -> None:
    runs = {name: Run(90.0, 150.0, 2.5e9, 0)._asdict() for name in ("whole", "killed", "again", "tiled")}
    found = {"psnr": 51.23, "most": 4.0, "column_mean": 0.5, "column_worst": 0.6, "row_mean": 0.5, "row_worst": 0.7}
    settings = {"model": "m", "side": 8192, "tile": 1920, "threads": 2}
    result = {"date": "2026-12-01", "machine": {"cpu": "some"}, "load": 0.1, "settings": settings, "runs": runs}
    result |= {"rows_kept": 5, "equal_after_kill": True, "difference": found}
    said = as_markdown(json.loads(json.dumps(result)))
    assert "| killed half-way, 5 rows of tiles kept | 1.5 | 2.5 | 2.50 GB |" in said
    assert "ends with the same bytes" in said and "51.2 dB" in said and "column 0.600" in said
    assert "OTHER BYTES" in as_markdown({**result, "equal_after_kill": False})
