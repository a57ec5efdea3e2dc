"""A small real DVC pipeline for each module."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

LANES = ("w4a4", "w3a3")


def dvc_yaml(lanes: Sequence[str], lane_params: Sequence[str]) -> str:
    """One stage before the lanes and one after them."""
    join = ["work.py", *(f"lane-{bits}.txt" for bits in lanes)]
    return f"""
stages:
  prepare:
    cmd: python work.py prepare
    deps: [work.py]
    params: [seed]
    outs: [prepare.txt]
  lane:
    matrix:
      bits: [{", ".join(lanes)}]
    cmd: python work.py lane-${{item.bits}}
    deps: [work.py, prepare.txt]
    params: {json.dumps(list(lane_params))}
    outs: ["lane-${{item.bits}}.txt"]
  join:
    cmd: python work.py join
    deps: [{", ".join(join)}]
    outs: [join.txt]
"""


# A stage: notes when it ran; waits for its neighbour, fails or hangs when a file asks for it.
WORK_PY = """
import os, pathlib, sys, time
name = sys.argv[1]
began = time.time()
print("hello from", name)
pathlib.Path(f"started-{name}").touch()
if pathlib.Path("together").exists() and name.startswith("lane"):
    while not (pathlib.Path("started-lane-w4a4").exists() and pathlib.Path("started-lane-w3a3").exists()):
        time.sleep(0.05)
        if time.time() - began > 60:
            sys.exit("the other lane never came")
if pathlib.Path(f"hang-{name}").exists():
    pathlib.Path("pid.tmp").write_text(str(os.getpid()))
    os.rename("pid.tmp", "pid")
    while pathlib.Path(f"hang-{name}").exists() and time.time() - began < 120:
        time.sleep(0.05)
if pathlib.Path(f"fail-{name}").exists():
    for n in range(30):
        print("line", n)
    sys.exit("this is why it failed")
pathlib.Path(f"{name}.txt").write_text(f"{name} {began}")
with open("events.log", "a") as log:
    log.write(f"{name} {began} {time.time()}\\n")
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A git repository with four DVC stages: prepare, two lanes, join."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "dvc.yaml").write_text(dvc_yaml(LANES, ["precision.${item.bits}"]))
    (folder / "work.py").write_text(WORK_PY)
    (folder / "params.yaml").write_text((root / "params.yaml").read_text())
    new_repository(folder)
    return folder


def new_repository(folder: Path) -> None:
    """Git and DVC, quiet and without questions."""
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=folder, check=True)
    config = "[core]\n    analytics = false\n    check_update = false\n"
    (folder / ".dvc" / "config").write_text(config)
