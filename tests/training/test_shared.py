"""RPQ and ET in one, two and four processes: equal bytes, whatever their number."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn import Parameter

from qartsr.config import load_params, parse_bits
from qartsr.config.method import ModelPhase, ModulesPhase
from qartsr.config.training import ImageLossConfig, LPIPSConfig, RoleRates
from qartsr.errors import QartsrError
from qartsr.quantize import observe, plan, save_state
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.distributed import World, init_distributed
from qartsr.training.et import extend, teacher_images
from qartsr.training.loop import Curves
from qartsr.training.optimizer import Group, Optimizer, Setting, constant
from qartsr.training.rpq import reconstruct
from tests.conftest import ROOT
from tests.packing.tiny import tiny_model

CPU = torch.device("cpu")
RATES = RoleRates(transform=1.0, skip=1.0, adapter=1.0, quantizer=1.0)
LOSS = ImageLossConfig(lpips=0.0, mse=1.0, l1=0.0)


def train(folder: Path, world: World, parts: int = 4) -> None:
    """Both phases on a tiny model; the first process writes what has been trained and its losses."""
    torch.set_num_threads(1)
    teacher = tiny_model()
    lq = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    params = load_params(ROOT / "configs" / "osediff.yaml")  # min-max start: quick
    decided = plan(teacher, params.method.planned(params.common), parse_bits("w4a4"), lq)
    setting, curves = Setting(LPIPSConfig(), "none", 1.0, 0), Curves(lambda values, step: None)
    quantize = ModulesPhase(steps=1, batch=4, parts=parts, lr=1e-2, rates=RATES, loss=LOSS)
    whole = ModelPhase(steps=3, batch=4, parts=parts, lr=1e-2, rates=RATES, loss=LOSS)
    first = Checkpoint(folder / "first", 60.0, world.is_main_process)
    statistics = observe(teacher, lq.split(8))
    student = reconstruct(teacher, decided, statistics, lq, quantize, setting, curves, first, world)
    images = teacher_images(teacher, lq, 2, world)
    extend(
        student,
        images,
        lq,
        whole,
        setting,
        curves,
        Checkpoint(folder / "second", 60.0, world.is_main_process),
        world=world,
    )
    if world.is_main_process:
        save_state(student, decided, folder / "out")
        curves.write(folder / "out" / "curves.csv")


def work(folder: str) -> None:
    """What each of several launched processes does."""
    with init_distributed(CPU) as world:
        train(Path(folder), world)


def hashes(folder: Path) -> dict[str, str]:
    """Of all that is written: the teacher's states, the model, the losses."""
    files = [*sorted((folder / "first" / "cuts").iterdir()), *sorted((folder / "out").iterdir())]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize(
    "processes", [pytest.param(2, marks=pytest.mark.long), pytest.param(4, marks=pytest.mark.slow)]
)
def test_equal_bytes_whatever_the_number_of_processes(tmp_path: Path, processes: int) -> None:
    command = [sys.executable, "-m", "tests.training.test_shared", str(tmp_path / "many"), str(processes)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    train(tmp_path / "one", World(CPU))
    one, many = hashes(tmp_path / "one"), hashes(tmp_path / "many")
    assert one == many
    assert len(one) == 12 + 1 + 3, "a sample's states are a file each"


def test_parts_are_the_whole() -> None:
    """The mean over parts is the gradient of the batch: the same line is fitted, and the same losses are told."""
    x, y = torch.rand(8, 3, generator=torch.Generator().manual_seed(1)), torch.arange(8.0)
    ends = []
    for parts in (1, 2, 8):
        slope, unused = Parameter(torch.zeros(3)), Parameter(torch.ones(1))
        optimizer = Optimizer([Group([("slope", slope), ("unused", unused)], 0.1)], 0.1, constant)

        def measure(number: int, part: slice, slope: Parameter = slope) -> dict[str, torch.Tensor]:
            return {"total": ((x @ slope)[part] - y[part]).square().mean()}

        step = optimizer.shared_descent(measure, 8, parts)
        told = [float(step(number)["total"].detach()) for number in range(20)]
        assert unused.item() == 1, "what has no gradient is left alone, by weight decay too"
        ends.append([*slope.tolist(), *told])
    assert ends[0] == pytest.approx(ends[1], rel=1e-4) and ends[0] == pytest.approx(ends[2], rel=1e-4)


def test_parts_that_cannot_be_shared() -> None:
    optimizer = Optimizer([Group([], 0.0)], 0.0, constant, world=World(CPU, 0, 3))
    for batch, parts in ((4, 3), (4, 2)):
        with pytest.raises(QartsrError, match="cannot be shared by 3 processes"):
            optimizer.shared_descent(lambda number, part: {}, batch, parts)


if __name__ == "__main__":  # forked: imports take longer than the training
    launch = LaunchConfig(
        1, 1, int(sys.argv[2]), run_id="many", rdzv_endpoint="localhost:0", rdzv_backend="c10d", start_method="fork"
    )
    elastic_launch(launch, work)(sys.argv[1])
