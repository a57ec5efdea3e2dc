"""The loop: an interrupted run that continues ends with the same numbers; a run without parameters is legal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from qartsr.errors import QartsrError
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.curves import Curves
from qartsr.training.determinism import generator
from qartsr.training.fit import Run, fit, resume
from qartsr.training.optimizer import Group, Optimizer, constant, cosine


class KilledError(Exception):
    """Stands for the end of the process."""


class Problem:
    """Fit a line to noisy points; ``stop`` kills the run before that step."""

    def __init__(self, folder: Path, stop: int | None = None) -> None:
        self.slope = Parameter(torch.tensor([0.5, -0.25]))
        self.stop = stop
        self.optimizer = Optimizer([Group([("slope", self.slope)], 0.05)], 0.0, cosine(30, 3))
        self.curves = Curves(lambda values, step: None)
        self.run = Run("line", 30, self.optimizer, {"module": "only"})
        checkpoint = Checkpoint(folder, seconds=0.0)
        step = self.optimizer.descent(self.losses)
        fit(self.run, step, self.curves, checkpoint, resume(self.run, self.curves, checkpoint))

    def losses(self, number: int) -> dict[str, Tensor]:
        if number == self.stop:
            raise KilledError
        x = torch.rand(4, 2, generator=generator(0, "line", number))
        loss = ((x @ self.slope) - x.sum(1) * 3).square().mean()
        return {"total": loss}


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = Problem(tmp_path / "whole")
    with pytest.raises(KilledError):
        Problem(tmp_path / "parts", stop=17)
    again = Problem(tmp_path / "parts")
    assert torch.equal(again.slope, whole.slope)
    assert again.curves.rows == whole.curves.rows
    assert len(whole.curves.rows) == 30


def test_the_loss_falls(tmp_path: Path) -> None:
    rows = Problem(tmp_path).curves.rows
    assert float(rows[-1]["total"]) < 0.5 * float(rows[0]["total"])


def test_nothing_to_train_is_legal() -> None:
    optimizer = Optimizer([Group([("frozen", Parameter(torch.ones(1)))], 0.0)], 0.0, constant)
    optimizer.descent(lambda number: {"total": torch.ones(())})(0)
    assert optimizer.named() == {}


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, 0.0)
    checkpoint.save({"x": torch.ones(8)}, {"step": 1})
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(QartsrError, match="delete it to start anew"):
        checkpoint.load()


def test_scratch_folder_depends_on_settings_and_contents(tmp_path: Path) -> None:
    source = tmp_path / "input"
    source.write_text("a")
    first = scratch_folder(tmp_path, "s", "stages.retrain", {"lr": 1}, [source])
    assert first == scratch_folder(tmp_path, "s", "stages.retrain", {"lr": 1}, [source])
    assert first != scratch_folder(tmp_path, "s", "stages.retrain", {"lr": 2}, [source])
    assert first != scratch_folder(tmp_path, "s", "stages.quantize", {"lr": 1}, [source])
    source.write_text("b")
    assert first != scratch_folder(tmp_path, "s", "stages.retrain", {"lr": 1}, [source])


def test_cosine_warms_up_and_ends_near_zero() -> None:
    schedule = cosine(100, 10)
    assert schedule(0) == pytest.approx(0.1, rel=0.01)
    assert max(schedule(step) for step in range(100)) <= 1.0
    assert schedule(99) < 0.01
