"""The benchmark runs at small size and writes what it measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import full_size


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads peak memory from Linux")
def test_both_precisions_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--arch", "sample", "--size", "64", "--rounds", "2", "--threads", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(full_size, "peak_alone", lambda *args: 1e9)  # a fresh process takes seconds to import torch
    monkeypatch.setattr(sys, "argv", ["full_size", *words])
    full_size.main()
    (file,) = tmp_path.glob("full_size_*.json")
    result = json.loads(file.read_text())
    for values in result["precisions"].values():
        assert [len(values[part]["seconds"]["all"]) for part in ("encoder", "UNet", "decoder", "total")] == [2] * 4
        assert values["total"]["seconds"]["min"] > 0
    assert result["precisions"]["fp32"]["weights_gb"] == pytest.approx(2 * result["precisions"]["bf16"]["weights_gb"])
    assert result["peak_rss_gb_both_models"] > result["precisions"]["fp32"]["weights_gb"]
    text = file.with_suffix(".md").read_text()
    assert "| total | " in text and str(tmp_path) not in text
