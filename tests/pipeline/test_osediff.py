"""The paper's own profile on a little Stable Diffusion: every stage from the photographs to the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from qartsr import OneStepSRPipeline
from tests.pipeline.conftest import copy_project, little_osediff

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]


def test_from_photographs_to_package(tmp_path: Path) -> None:
    values = little_osediff(tmp_path / "base")
    values["bits"] = ["w2a2"]
    values["calibrate"] = {"pairs": 2, "lr_size": 16}
    values["retrain"] |= {"steps": 2}
    values["probe"] |= {"steps": 1, "crop": 64}
    modules, model = values["method"]["phases"]
    modules["steps"], model["steps"] = 1, 2
    values["evaluate"] = {"metrics": ["psnr", "psnr_rgb"]}
    (tmp_path / "project").mkdir()
    project = copy_project(tmp_path / "project", values)
    run = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--no-commit", "package@w2a2"],
        cwd=project,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    scores = json.loads((project / "metrics" / "w2a2.json").read_text())
    assert 0 < scores["photographs"]["psnr"] < 60
    package = project / "build" / "packages" / "w2a2"
    assert "license: openrail++\n" in (package / "README.md").read_text()
    pipe = OneStepSRPipeline.from_pretrained(package, device="cpu")
    assert pipe(Image.new("RGB", (19, 33), "teal")).size == (76, 132)
