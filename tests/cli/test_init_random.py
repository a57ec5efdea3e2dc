"""`qartsr init-random` as a user types it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from qartsr.cli import init_random
from qartsr.errors import QartsrError
from qartsr.models import load_model


def run(*words: str) -> None:
    parser = argparse.ArgumentParser()
    init_random.register(parser.add_subparsers())
    args = parser.parse_args(["init-random", *words])
    args.run(args)


def test_a_sample_model_with_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(str(tmp_path / "m"), "--arch", "sample", "--dtype", "fp16", "--seed", "7")
    load_model(tmp_path / "m")
    captured = capsys.readouterr()
    assert "sample, fp16, seed 7, 5.8 MB" in captured.out
    assert "100%" in captured.err


def test_force_is_needed_to_replace(tmp_path: Path) -> None:
    run(str(tmp_path / "m"), "--arch", "sample")
    with pytest.raises(QartsrError, match="--force"):
        run(str(tmp_path / "m"), "--arch", "sample")
    run(str(tmp_path / "m"), "--arch", "sample", "--force")
