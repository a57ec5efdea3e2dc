"""Stages under a real Slurm of two nodes with two GPUs each; skipped where Slurm is not installed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.pipelines.alive import until
from tests.pipelines.conftest import dvc_yaml, new_repository
from tests.pipelines.slurm import cluster, missing, queue

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.skipif(bool(missing()), reason=missing())]

SRUN = (
    "srun --job-name=qartsr-{name} --ntasks=1 --cpus-per-task=1 --mem=300 --gres=gpu:1 --unbuffered --quit-on-interrupt"
)
LANES = [f"w{n}a{n}" for n in (8, 6, 4, 3, 2)]
WORK_PY = """
import os, pathlib, sys, time
name, began = sys.argv[1], time.time()
gpu = f"{os.environ.get('SLURMD_NODENAME', 'here')}:{os.environ.get('CUDA_VISIBLE_DEVICES', '')}"
print("hello from", name, "on", gpu, flush=True)
pathlib.Path(f"started-{name}").touch()
if pathlib.Path("slow").exists() and name.startswith("lane"):
    time.sleep(4)
while pathlib.Path(f"hang-{name}").exists() and time.time() - began < 120:
    time.sleep(0.05)
if pathlib.Path(f"fail-{name}").exists():
    sys.exit("this is why it failed")
pathlib.Path(f"{name}.txt").write_text(name)
with open("events.log", "a") as log:
    log.write(f"{name} {gpu} {began} {time.time()}\\n")
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Iterator[dict[str, str]]:
    with cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield {**environment, "PREFECT_API_URL": prefect_server}


@pytest.fixture()
def project(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(dvc_yaml(LANES, []))
    (tmp_path / "work.py").write_text(WORK_PY)
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["compute"]["launcher"] = {"prepare": "", "*": SRUN}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    new_repository(tmp_path)
    return tmp_path


def _flow(project: Path, slurm: dict[str, str], *words: str) -> subprocess.Popen[str]:
    environment = {**slurm, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipelines.reproduce", "--lanes", "8", *words]
    return subprocess.Popen(
        command, cwd=project, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_five_lanes_queue_for_four_gpus(project: Path, slurm: dict[str, str]) -> None:
    (project / "slow").touch()
    with _flow(project, slurm) as flow:
        output, _ = flow.communicate(timeout=300)
    assert flow.returncode == 0, output
    assert "queued and waiting for resources" in output
    events = [line.split() for line in (project / "events.log").read_text().splitlines()]
    lanes = {name: (gpu, float(began), float(ended)) for name, gpu, began, ended in events if name.startswith("lane")}
    assert len(lanes) == 5 and {gpu for gpu, _, _ in lanes.values()} == {f"gpu{n}:{d}" for n in (1, 2) for d in (0, 1)}
    for gpu, began, ended in lanes.values():
        others = [each for each in lanes.values() if each != (gpu, began, ended) and each[0] == gpu]
        assert all(ended <= other[1] or other[2] <= began for other in others), "two stages had one GPU"
    assert dict(line.split()[:2] for line in (project / "events.log").read_text().splitlines())["prepare"] == "here:"
    here = {path.name: path.read_bytes() for path in project.glob("*.txt")}
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    for path in (*project.glob("*.txt"), project / "dvc.lock"):
        path.unlink()
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--force", "--quiet"], cwd=project, check=True)
    assert here == {path.name: path.read_bytes() for path in project.glob("*.txt")}
    assert lock == yaml.safe_load((project / "dvc.lock").read_text()), "Slurm left a trace in dvc.lock"
    assert queue(slurm) == []


def test_a_failing_stage_fails_the_flow_with_its_lines(project: Path, slurm: dict[str, str]) -> None:
    (project / "fail-lane-w3a3").touch()
    with _flow(project, slurm) as flow:
        output, _ = flow.communicate(timeout=300)
    assert flow.returncode == 1 and "this is why it failed" in output.partition("\nerror: ")[2], output
    assert "not run: join" in output and queue(slurm) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_however_the_flow_ends_no_job_is_left(
    project: Path, slurm: dict[str, str], number: signal.Signals, status: int
) -> None:
    (project / "hang-lane-w4a4").touch()
    with _flow(project, slurm) as flow:
        assert until((project / "started-lane-w4a4").exists, 180)
        assert any("qartsr-lane@w4a4 RUNNING" in line for line in queue(slurm))
        flow.send_signal(number)
        flow.communicate(timeout=60)
    assert flow.returncode == status
    assert until(lambda: queue(slurm) == [], 30), queue(slurm)


def test_a_cancelled_job_is_tried_again(project: Path, slurm: dict[str, str]) -> None:
    """As one whose node was lost: Slurm ended it, it refused nothing."""
    (project / "hang-lane-w4a4").touch()
    with _flow(project, slurm) as flow:
        assert until((project / "started-lane-w4a4").exists, 180)
        (project / "hang-lane-w4a4").unlink()
        subprocess.run(["scancel", "--name=qartsr-lane@w4a4"], env=slurm, check=True)
        output, _ = flow.communicate(timeout=300)
    assert flow.returncode == 0, output


def test_two_nodes_train_to_the_weights_of_one_process(tmp_path: Path, slurm: dict[str, str]) -> None:
    """salloc of two nodes, two processes on each, gloo between them: the gradient of the whole batch."""
    from tests.training.test_backbone import furthest, gradients
    from tests.training.tiny import run

    environment = {**slurm, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = ["salloc", "--nodes=2", "--gpus-per-node=2", "--mem=3000", sys.executable, "-m", "tests.training.tiny"]
    words = [*command, str(tmp_path / "four"), "1", "1", "4"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stdout + done.stderr
    run(tmp_path / "one", 1)
    assert furthest(gradients(tmp_path / "four"), gradients(tmp_path / "one")) < 1e-5
    assert queue(slurm) == []
    assert re.search(r"job|alloc", done.stderr), "salloc said nothing"
    assert os.path.exists(tmp_path / "four" / "checkpoint.safetensors")
