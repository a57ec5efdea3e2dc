"""``qartsr init-random`` as a user types it."""

from __future__ import annotations

from pathlib import Path

from qartsr.models import load_model
from tests.cli.conftest import Qartsr


def test_a_sample_model_with_progress(qartsr: Qartsr, tmp_path: Path) -> None:
    said = qartsr("init-random", tmp_path / "m", "--arch", "sample", "--dtype", "fp16", "--seed", "7")
    load_model(tmp_path / "m")
    size = sum(path.stat().st_size for path in (tmp_path / "m").rglob("*") if path.is_file()) / 1e6
    assert f"sample, fp16, seed 7, {size:.1f} MB" in said.out
    assert "100%" in said.err


def test_force_is_needed_to_replace(qartsr: Qartsr, tmp_path: Path) -> None:
    assert qartsr("init-random", tmp_path / "m", "--arch", "sample").status == 0
    refused = qartsr("init-random", tmp_path / "m", "--arch", "sample")
    assert refused.status == 1 and "--force" in refused.err
    assert qartsr("init-random", tmp_path / "m", "--arch", "sample", "--force").status == 0
