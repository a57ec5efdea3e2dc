"""Several processes, launched for real: half a batch each gives the gradient of the whole batch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from qartsr.training.distributed import MicroBatching, World, init_distributed, relaunch_workers
from tests.conftest import ROOT
from tests.training.test_backbone import furthest, gradients, state
from tests.training.tiny import CPU, run

LAUNCHERS = {
    "elastic": [],
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    "accelerate": ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
                   "--mixed_precision", "no", "--dynamo_backend", "no"],
}  # fmt: skip


def _launch(words: list[str], *arguments: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *(["-m", *words] if words else []), "-m", "tests.training.tiny", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("elastic", marks=pytest.mark.long),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("torchrun", "accelerate")),
    ],
)
def test_two_processes_have_the_gradient_of_one(tmp_path: Path, launcher: str) -> None:
    """Adapters, VSD and its student, gradients accumulated in each process; only the first process writes."""
    process = _launch(LAUNCHERS[launcher], str(tmp_path / "two"), "1", "1")
    run(tmp_path / "one", 1)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert furthest(gradients(tmp_path / "two"), gradients(tmp_path / "one")) < 1e-5
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["checkpoint.safetensors"]


def test_alone_nothing_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not relaunch_workers("tests.training.tiny", 1)
    with init_distributed(CPU) as world:
        assert (world.rank, world.size, world.is_main_process) == (0, 1, True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not relaunch_workers("tests.training.tiny", 2), "a launched process launched others"


def test_the_mean_of_one_is_itself() -> None:
    value = torch.tensor([1.0, 2.0])
    World(CPU).average([value])
    World(CPU).wait()
    assert value.tolist() == [1.0, 2.0]


@pytest.mark.slow
def test_processes_of_a_killed_launcher_die(tmp_path: Path) -> None:
    """kill -9 of the launcher: nobody is left to write; the same command goes on and ends with the same state."""
    steps = 6
    process = _launch(LAUNCHERS["torchrun"], str(tmp_path / "two"), str(10**6), "1")
    path, deadline = tmp_path / "two" / "checkpoint.safetensors", time.monotonic() + 400
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [child for task in tasks for child in task.read_text().split()]
    assert len(children) >= 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "an orphan trains on"
        time.sleep(0.1)
    done = int(next(v for k, v in state(tmp_path / "two").items() if k.endswith("/step")))
    for folder in ("two", "whole"):
        again = _launch(LAUNCHERS["torchrun"], str(tmp_path / folder), str(done + steps), "1")
        _, errors = again.communicate(timeout=300)
        assert again.returncode == 0, errors
    found, expected = state(tmp_path / "two"), state(tmp_path / "whole")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_of_several_processes_one_leads() -> None:
    assert [World(CPU, rank, 3).is_main_process for rank in range(3)] == [True, False, False]
    assert [len(MicroBatching(World(CPU, rank, 3)).shares(0, 9, 32)) for rank in range(3)] == [1, 1, 1]
