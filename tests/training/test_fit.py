"""The loop: an interrupted run that continues ends with the same numbers; a run without parameters is legal."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from qartsr.errors import DivergedError, QartsrError
from qartsr.models import OneStepSR, save_model
from qartsr.training.checkpoint import Checkpoint, intact, scratch_folder, seal
from qartsr.training.determinism import generator
from qartsr.training.loop import Curves, Run, fit, resume
from qartsr.training.optimizer import Group, Optimizer, constant, cosine
from qartsr.training.teacher_cache import ActivationCache


class KilledError(Exception):
    """Stands for the end of the process."""


class Problem:
    """Fit a line to noisy points; ``stop`` kills the run before that step, ``bad`` lets it meet infinity."""

    def __init__(self, folder: Path, stop: int | None = None, bad: int | None = None) -> None:
        self.slope = Parameter(torch.tensor([0.5, -0.25]))
        self.stop, self.bad = stop, bad
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
        if number == self.bad:
            x /= 0
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


def test_a_loss_that_is_no_number_ends_the_run_and_is_not_kept(tmp_path: Path) -> None:
    """The checkpoint is that of the step before: with the fault mended, the run ends as if it had never been."""
    whole = Problem(tmp_path / "whole")
    said = "^line: the loss is (nan|inf) at step 13 of 30; train with a lower learning rate.$"
    with pytest.raises(DivergedError, match=said):
        Problem(tmp_path / "bad", bad=12)
    again = Problem(tmp_path / "bad")
    assert torch.equal(again.slope, whole.slope) and again.curves.rows == whole.curves.rows


def test_the_loss_falls(tmp_path: Path) -> None:
    rows = Problem(tmp_path).curves.rows
    assert float(rows[-1]["total"]) < 0.5 * float(rows[0]["total"])


def test_pictures_are_shown_at_quarters_and_change_nothing(tmp_path: Path) -> None:
    whole, shown = Problem(tmp_path / "whole"), list[tuple[tuple[int, ...], int, int]]()
    problem = Problem(tmp_path / "whole")  # finished: no step is done again
    assert problem.curves.rows == whole.curves.rows
    slope = Parameter(torch.tensor([0.5, -0.25]))
    problem.slope, problem.optimizer = slope, Optimizer([Group([("slope", slope)], 0.05)], 0.0, cosine(30, 3))
    view = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    run = Run("line", 30, problem.optimizer, {}, offset=100, view=lambda: view)
    curves = Curves(
        lambda values, step: None, show=lambda seen, step: shown.append((seen.shape, int(seen.max()), step))
    )
    fit(run, problem.optimizer.descent(problem.losses), curves, Checkpoint(tmp_path / "b", 60.0))
    assert shown == [((2, 4, 5, 3), 255, 100 + step) for step in (6, 14, 21, 29)]
    assert torch.equal(slope, whole.slope)
    nothing = {"total": torch.zeros(())}
    fit(run._replace(shown=False), lambda number: nothing, curves, Checkpoint(tmp_path / "c", 60.0))
    assert len(shown) == 4  # of several processes one shows
    fit(run._replace(offset=0), lambda number: nothing, curves, Checkpoint(tmp_path / "d", 60.0))
    assert [step for _, _, step in shown[4:]] == [0, 6, 14, 21, 29]


def test_a_step_is_that_of_torchs_adamw() -> None:
    """In every bit: two rates, a schedule, gradients cut at norm 1, a parameter without one until the fifth step."""
    begun = [torch.randn(shape, generator=generator(0, "begun", *shape)) for shape in ((4, 3), (5,), (2,))]
    ours, theirs = ([Parameter(value.clone()) for value in begun] for _ in range(2))
    names = ("weight", "bias", "late")
    groups = [Group([*zip(names[:2], ours[:2], strict=True)], 0.1), Group([(names[2], ours[2])], 0.01)]
    optimizer = Optimizer(groups, 0.05, cosine(20, 3), (0.8, 0.95))
    settings = [{"params": theirs[:2], "lr": 0.1}, {"params": theirs[2:], "lr": 0.01}]
    adam = torch.optim.AdamW(settings, betas=(0.8, 0.95), weight_decay=0.05)

    def losses(values: list[Parameter], number: int) -> dict[str, Tensor]:
        used = values[: 2 + (number >= 4)]
        return {"total": sum((3 * (value - number).square().sum() for value in used), start=torch.zeros(()))}

    step = optimizer.descent(lambda number: losses(ours, number))
    for number in range(20):
        step(number)
        adam.zero_grad()
        losses(theirs, number)["total"].backward()
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        for group, rate in zip(adam.param_groups, (0.1, 0.01), strict=True):
            group["lr"] = rate * cosine(20, 3)(number)
        adam.step()
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True)), number
    state = optimizer.state()
    for name, parameter in zip(names, theirs, strict=True):
        assert all(torch.equal(state[f"adam/{name}/{key}"], value) for key, value in adam.state[parameter].items())
    assert len(state) == 3 * 4


def test_nothing_stands_twice() -> None:
    one, other = Parameter(torch.ones(1)), Parameter(torch.ones(1))
    for twice in ([("a", one), ("b", one)], [("a", one), ("a", other)]):
        with pytest.raises(ValueError, match="stands twice"):
            Optimizer([Group([each], 0.1) for each in twice], 0.0, constant)


def test_nothing_to_train_is_legal() -> None:
    optimizer = Optimizer([Group([("frozen", Parameter(torch.ones(1)))], 0.0)], 0.0, constant)
    optimizer.descent(lambda number: {"total": torch.ones(())})(0)
    assert optimizer.named() == {}


def _flipped(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_whatever_byte_of_a_checkpoint_is_damaged_it_is_told_and_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, path = Checkpoint(tmp_path, 0.0), tmp_path / "checkpoint.safetensors"
    values = {"x": torch.ones(8), "y": torch.arange(3), "z": torch.ones(2, 3, dtype=torch.bfloat16).T}
    checkpoint.save(values, {"step": 1})
    whole = path.read_bytes()
    loaded = checkpoint.load()
    assert loaded is not None and loaded[1] == {"step": 1}
    assert all(torch.equal(loaded[0][name], value) for name, value in values.items())
    for place in range(len(whole)):
        path.write_bytes(whole)
        _flipped(path, place)
        found = checkpoint.load()
        assert found is None or (found[1] == {"step": 1} and torch.equal(found[0]["x"], values["x"])), place
        assert found is not None or "is damaged and is not used" in capsys.readouterr().err
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert checkpoint.load() is None
    assert checkpoint.load() is None, "set aside"


def test_a_damaged_checkpoint_costs_the_work_not_the_result(tmp_path: Path) -> None:
    whole = Problem(tmp_path / "whole")
    with pytest.raises(KilledError):
        Problem(tmp_path / "parts", stop=17)
    _flipped(tmp_path / "parts" / "checkpoint.safetensors", -3)
    assert torch.equal(Problem(tmp_path / "parts").slope, whole.slope)


def test_what_is_kept_for_a_rerun_is_sealed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cuts"
    folder.mkdir()
    (folder / "a").write_bytes(b"abc")
    assert not intact(folder), "killed before it was sealed"
    seal(folder)
    assert intact(folder) and not capsys.readouterr().err
    _flipped(folder / "a", 1)
    assert not intact(folder) and "is damaged" in capsys.readouterr().err


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, model: OneStepSR) -> None:
    """A limit of a file's size stands for the disk: the same path through safetensors, another number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        for write in (
            lambda: Checkpoint(tmp_path, 0.0).save({"x": torch.ones(10_000)}, {}),
            lambda: save_model(model, tmp_path / "model"),
            lambda: ActivationCache(tmp_path / "cuts", model, model.segments(), torch.zeros(1, 3, 64, 64)).fill(),
        ):
            with pytest.raises(QartsrError, match=r"cannot be written .File too large"):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


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
