"""The benchmark runs on the sample architecture and finds the computed bytes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import full_package


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads peak memory from Linux")
def test_a_package_has_the_computed_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--arch", "sample", "--bits", "w2a2", "--rank", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["full_package", *words])
    full_package.main()
    (file,) = tmp_path.glob("full_package_sample_rank2_*.json")
    found = json.loads(file.read_text())["packages"]["w2a2"]
    assert found["bytes"] == found["computed_bytes"] == sum(found["kinds"].values())
    assert found["relative_difference_of_images"] <= 1e-5
    assert f"{found['bytes']:,}" in file.with_suffix(".md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads peak memory from Linux")
def test_all_run_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--arch", "sample", "--bits", "w4a4", "--rank", "2", "--side", "64", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["full_package", *words])
    full_package.main()
    (file,) = tmp_path.glob("full_package_sample_rank2_*.json")
    runs = json.loads(file.read_text())["runs"]
    assert list(runs) == ["torch fp32", "torch bf16", "simulated", "openvino"]
    assert all({"first", "second", "peak_gb"} <= found.keys() for found in runs.values()), runs
