"""kill -9 in a training stage, then the stage again: it continues, and ends with the bytes of an undisturbed run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from qartsr.files import sha256_tree
from tests.packing.tiny import tiny_model
from tests.pipeline.conftest import copy_project, tiny

pytestmark = pytest.mark.pipeline


@pytest.fixture()
def ready(tmp_path: Path) -> Path:
    """A scratch copy with its data, and the smallest model in the place of the sample."""
    values = tiny()
    values["retrain"] |= {"steps": 16}
    copied = copy_project(tmp_path, values, tiny_model())
    _here(copied, "data", "--out", "data")
    return copied


def _here(project: Path, name: str, *arguments: str) -> None:
    """A stage in this process, which has loaded what it needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(sys, "argv", [name, *arguments])
        import_module(f"stages.{name}").main()


def _stage(project: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-m", f"stages.{name}", *arguments]
    return subprocess.Popen(command, cwd=project, env=environment, text=True, stderr=subprocess.PIPE)


def _finish(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


def _retrain(out: str) -> list[str]:
    paths = {"--out": "model", "--curves": "retrain.csv"}
    named = [word for flag, path in paths.items() for word in (flag, f"{out}/{path}")]
    return ["--model", "weights/sample", "--data", "data", *named, "--work", f"{out}/work"]


def _killed(project: Path, out: str) -> Path:
    """Run retrain and kill it with -9 when its first checkpoint is there, which is returned."""
    victim = _stage(project, "retrain", *_retrain(out))
    deadline = time.monotonic() + 240
    while not (found := list((project / out / "work").glob("retrain/*/t1/checkpoint.safetensors"))):
        assert victim.poll() is None, victim.stderr.read() if victim.stderr else ""
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.05)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    assert not (project / out / "model").exists(), "the stage was over before it could be killed"
    return found[0]


@pytest.mark.long
def test_killed_stage_resumes_with_the_same_bytes(ready: Path) -> None:
    """With the code that wrote the checkpoint; with any other it begins anew and says so."""
    _here(ready, "retrain", *_retrain("whole"))
    old = _killed(ready, "killed")
    shutil.copytree(ready / "killed", ready / "edited")
    assert "note:" not in _finish(_stage(ready, "retrain", *_retrain("killed")))
    for name in ("model", "retrain.csv"):
        assert sha256_tree(ready / "killed" / name) == sha256_tree(ready / "whole" / name), name
    assert not list((ready / "killed" / "work").rglob("*.safetensors")), "the checkpoint was left behind"
    old = ready / "edited" / old.relative_to(ready / "killed")
    state = old.read_bytes()
    with (ready / "qartsr" / "training" / "vsd.py").open("a") as code:
        code.write("# an edit\n")
    notes = [line for line in _finish(_stage(ready, "retrain", *_retrain("edited"))).splitlines() if "note:" in line]
    assert len(notes) == 1 and "interrupted run of other code; this run begins anew" in notes[0]
    assert old.read_bytes() == state, "what the old code left is neither read nor lost"
    assert sha256_tree(ready / "edited" / "model") == sha256_tree(ready / "whole" / "model")


def test_a_bad_parameter_is_one_sentence(tmp_path: Path) -> None:
    """Of another stage too: all are read before anything begins."""
    values = tiny()
    values["retrain"]["stepz"] = 1
    project = copy_project(tmp_path, values)
    process = _stage(project, "data", "--out", "data")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert lines == ["error: params.yaml: unknown key 'retrain.stepz'; did you mean 'steps'?"]
    assert yaml.safe_load((project / "params.yaml").read_text()) == values
