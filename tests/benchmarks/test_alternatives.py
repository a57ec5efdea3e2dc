"""The comparison with other tools: the same pixels for all, and what the table says of them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.alternatives import as_markdown, one, quality, summary
from qartsr.files import write_json


def test_a_contestant_is_measured_on_the_centres(tmp_path: Path) -> None:
    hr = np.kron(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
    Image.fromarray(hr).save(tmp_path / "hr.png")
    Image.fromarray(hr[::4, ::4]).save(tmp_path / "lr.png")
    write_json(tmp_path / "manifest.json", {"test": [{"name": n, "hr": "hr.png", "lr": "lr.png"} for n in "ab"]})
    asked = {"one": "bicubic", "side": 24, "data": tmp_path, "pictures": tmp_path, "threads": 1}
    turn = one(argparse.Namespace(**asked))
    assert len(turn["seconds"]) == 1 and turn["bytes"] == 0 and turn["peak_gb"] > 0
    made = np.asarray(Image.open(tmp_path / "b_bicubic.png"), float)
    truth = hr[12:108, 32:128].astype(float)
    assert made.shape == truth.shape
    blocks = made.reshape(24, 4, 24, 4, 3).mean((1, 3)) - truth[::4, ::4]
    assert np.abs(blocks).mean() < 25, "another window would be off by some 80 levels"
    assert 5 < quality(argparse.Namespace(**asked), "bicubic")["psnr"] < 40


def test_the_table_has_medians_over_rounds_and_no_quality_of_random_weights() -> None:
    turns = [{"seconds": s, "start": t, "peak_gb": 1.0, "bytes": 2_000_000} for s, t in (([1, 3, 2], 9.0), ([4], 7.0))]
    row = summary(turns)
    assert (row["seconds"], row["spread"], row["start"]) == (3, [2, 4], 8.0)
    settings = {"side": 24, "rounds": 2, "threads": 1, "pictures": 2}
    result = {"date": "2026-11-30", "machine": {"cpu": "some"}, "settings": settings, "rows": {"osediff fp32": row}}
    said = as_markdown(json.loads(json.dumps({**result, "load_average_before_and_after": [0.1, 0.2]})))
    assert "| osediff fp32 | 3.00 (2.00 to 4.00) | 8.0 | 1.00 | 2.0 | - | - | - |" in said
    assert quality(argparse.Namespace(), "osediff fp32") == {}
