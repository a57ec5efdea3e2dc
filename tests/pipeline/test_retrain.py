"""The stage on OSEDiff's profile, on a little Stable Diffusion: killed with -9, and launched as two processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from qartsr.files import sha256_tree
from tests.pipeline.conftest import copy_project, little_osediff

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

OUTPUTS = ("model", "retrain.csv")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scratch project with its data and its backbone."""
    values = little_osediff(tmp_path_factory.mktemp("base"))
    folder = copy_project(tmp_path_factory.mktemp("project"), values)
    values["compute"]["processes"] = 2
    (folder / "two.yaml").write_text(yaml.safe_dump(values))
    _finish(_stage(folder, "data", "--out", "data"))
    _finish(_stage(folder, "backbone", "--sample", "weights/sample", "--out", "backbone"))
    _finish(_stage(folder, "retrain", *_retrain("whole")))
    return folder


def _stage(project: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "WORLD_SIZE")}
    command = [sys.executable, "-m", f"stages.{name}", *arguments]
    return subprocess.Popen(command, cwd=project, env=environment, text=True, stderr=subprocess.PIPE)


def _finish(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    return errors


def _retrain(out: str) -> list[str]:
    paths = dict(zip(("--out", "--curves"), OUTPUTS, strict=True))
    named = [word for flag, path in paths.items() for word in (flag, f"{out}/{path}")]
    return ["--model", "backbone", "--data", "data", *named, "--work", f"{out}/work"]


def test_killed_stage_resumes_with_the_same_bytes(project: Path) -> None:
    victim = _stage(project, "retrain", *_retrain("killed"))
    deadline = time.monotonic() + 600
    while not list((project / "killed" / "work").glob("retrain/*/t1/checkpoint.safetensors")):
        assert victim.poll() is None and time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    assert not (project / "killed" / "model").exists(), "the stage was over before it could be killed"
    _finish(_stage(project, "retrain", *_retrain("killed")))
    for name in OUTPUTS:
        assert sha256_tree(project / "killed" / name) == sha256_tree(project / "whole" / name), name
    assert not list((project / "killed" / "work").rglob("*.safetensors")), "the checkpoint was left behind"


def test_two_processes_make_the_model_of_one(project: Path) -> None:
    """The stage launches them itself. Each has an image of every step; rounding is all that differs."""
    _finish(_stage(project, "retrain", "--params", "two.yaml", *_retrain("two")))
    for part in ("unet", "vae"):
        found, expected, start = (
            load_file(project / folder / part / "diffusion_pytorch_model.safetensors")
            for folder in ("two/model", "whole/model", "backbone")
        )
        moved = max(float((start[name] - value).abs().max()) for name, value in expected.items())
        assert moved > 1e-3
        for name, value in expected.items():
            assert torch.allclose(found[name], value, atol=0.02 * moved), name
    assert not list((project / "two" / "work").rglob("*.safetensors"))


def test_a_cancelled_stage_takes_its_processes_along(project: Path) -> None:
    process = _stage(project, "retrain", "--params", "two.yaml", *_retrain("cancelled"))
    deadline = time.monotonic() + 600
    while not list((project / "cancelled" / "work").glob("retrain/*/t1/checkpoint.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.02)
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [child for task in tasks for child in task.read_text().split()]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM
    assert len(children) >= 2 and not any(Path(f"/proc/{child}").exists() for child in children)


def test_an_error_of_a_launched_process_is_one_sentence(project: Path) -> None:
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["compute"]["processes"] = 2
    values["retrain"]["crop"] = 4096
    (project / "large.yaml").write_text(yaml.safe_dump(values))
    process = _stage(project, "retrain", "--params", "large.yaml", *_retrain("large"))
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 1
    sentences = {line for line in errors.splitlines() if line.startswith("error: ")}
    assert sentences == {"error: data: no training image is 4096 pixels wide and high; choose a smaller crop."}
