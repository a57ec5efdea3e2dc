"""A cell chooses its rate by pairs that are not trained on, goes on after a kill, and knows where errors arise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.study import cell as cells
from experiments.study.cell import Cell, Job, Trained, beyond, run_cell, train_method, write_cell
from experiments.study.measure import Judge, means
from experiments.study.sets import Windows
from qartsr.config.experiment import BudgetConfig
from qartsr.config.method import CommonConfig, MethodRow
from qartsr.config.training import LPIPSConfig
from qartsr.errors import DivergedError
from qartsr.files import read_json
from qartsr.models import OneStepSR
from qartsr.training.optimizer import Setting
from tests.training.tiny import one_step

LAYER = {"weight": {"kind": "minmax", "granularity": "channel"}, "input": {"kind": "minmax"}}
PHASE = {
    "kind": "model", "share": 1.0, "loss": {},
    "rates": {"transform": 0.0, "skip": 0.0, "adapter": 0.0, "quantizer": 1.0},
}  # fmt: skip
PAIR = torch.randint(0, 255, (2, 3, 48, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
WINDOWS = {"one": Windows(("a", "b"), PAIR, PAIR)}


@pytest.fixture()
def model() -> OneStepSR:
    return one_step()


def _cell(model: OneStepSR, folder: Path, *phases: Any) -> Cell:
    row = MethodRow.model_validate({"title": "T", "says": "S.", "layer": LAYER, "phases": phases})
    budget = BudgetConfig(steps=1, batch=1, pairs=4, lr_size=8, rates=(0.1, 0.2, 0.3))
    setting = Setting(LPIPSConfig(), "none", 1.0, 0)
    return Cell(model, row, "w4a4", CommonConfig(), budget, setting, folder, folder / "scratch", 10.0)


class Ran(list[tuple[int, float]]):
    """(seed, rate) of runs, and the steps of each."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []


@pytest.fixture()
def cheap(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Training is calibration, at 8 bits for a rate of 0.2 and at 2 bits for others; returns what ran."""
    ran = Ran()

    def train(job: Job, row: MethodRow, common: CommonConfig, bits: Any) -> Trained:
        ran.append((job.setting.seed, job.setting.lr_scale))
        ran.steps.append(job.steps)
        wide = 8 if job.setting.lr_scale == 0.2 else 2
        untrained = row.model_copy(update={"phases": ()})
        return train_method(job, untrained, common, bits._replace(weight=wide, input=wide))._replace(
            samples=job.steps * job.batch
        )

    inputs = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    monkeypatch.setattr(cells, "train_method", train)
    monkeypatch.setattr(cells, "load_inputs", lambda folder, seed, length=1: (inputs[:3], inputs[3:]))
    return ran


def test_the_best_rate_of_the_first_seed_serves_all_and_nothing_runs_twice(
    model: OneStepSR, tmp_path: Path, cheap: Ran
) -> None:
    cell, judge = _cell(model, tmp_path, PHASE), Judge(WINDOWS, LPIPSConfig(), model)
    found = run_cell(cell, (5, 6), cell.budget.rates, judge)
    assert found["rate"] == 0.2 and set(found["tried"]) == {"0.1", "0.2", "0.3"}
    assert cheap == [(5, 0.1), (5, 0.2), (5, 0.3), (6, 0.2)]
    assert run_cell(cell, (5, 6), cell.budget.rates, judge) == found and len(cheap) == 4
    assert set(found["seeds"]) == {"5", "6"} and found["seeds"]["5"]["means"]["one"]["psnr_to_fp"] > 20
    write_cell(cell, found, 5, WINDOWS, tmp_path / "out")
    assert read_json(tmp_path / "out" / "results.json") == found
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.json", "images.safetensors", "curves.csv"}


@pytest.mark.long
def test_a_best_rate_at_an_end_is_looked_beyond(model: OneStepSR, tmp_path: Path, cheap: Ran) -> None:
    """0.2 is the best (see ``cheap``) and lies beyond the list; the bound stops a search that finds no turn."""
    cell, judge = _cell(model, tmp_path, PHASE), Judge(WINDOWS, LPIPSConfig(), model)
    cell = cell._replace(budget=cell.budget.model_copy(update={"more_rates": 3}))
    found = run_cell(cell, (5,), (0.4, 0.8), judge)
    assert [rate for _, rate in cheap] == [0.4, 0.8, 0.2, 0.1] and found["rate"] == 0.2
    assert list(found["tried"]) == ["0.1", "0.2", "0.4", "0.8"]
    assert run_cell(cell, (5,), (0.4, 0.8), judge) == found and len(cheap) == 4
    cheap.clear()
    bounded = cell._replace(scratch=tmp_path / "more", budget=cell.budget.model_copy(update={"more_rates": 1}))
    assert run_cell(bounded, (5,), (0.8, 1.6), judge)["rate"] == 0.4 and len(cheap) == 3
    assert run_cell(bounded, (5,), (0.2,), judge)["rate"] == 0.2  # one rate is given, not searched for


def test_rates_are_tried_with_a_share_of_the_steps(model: OneStepSR, tmp_path: Path, cheap: Ran) -> None:
    cell, judge = _cell(model, tmp_path, PHASE), Judge(WINDOWS, LPIPSConfig(), model)
    cell = cell._replace(budget=cell.budget.model_copy(update={"steps": 8, "search": 0.25}))
    found = run_cell(cell, (5, 6), cell.budget.rates, judge)
    assert len(list(tmp_path.rglob("images.safetensors"))) == 2  # a trial does not restore the test windows
    assert cheap == [(5, 0.1), (5, 0.2), (5, 0.3), (5, 0.2), (6, 0.2)] and cheap.steps == [2, 2, 2, 8, 8]
    assert found["tried_with"] == 2 and found["seeds"]["5"]["samples"] == 8
    assert run_cell(cell, (5, 6), cell.budget.rates, judge) == found and len(cheap) == 5


def test_rates_that_are_nearly_equal_are_two(model: OneStepSR, tmp_path: Path, cheap: Ran) -> None:
    cell, judge = _cell(model, tmp_path, PHASE), Judge(WINDOWS, LPIPSConfig(), model)
    found = run_cell(cell, (5,), (0.2, 0.20000001), judge)
    assert cheap == [(5, 0.2), (5, 0.20000001)] and set(found["tried"]) == {"0.2", "0.20000001"}


def test_a_rate_that_diverges_is_the_worst(
    model: OneStepSR, tmp_path: Path, cheap: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(job: Job, row: MethodRow, common: CommonConfig, bits: Any) -> Trained:
        if job.setting.lr_scale > limit:
            cheap.append((job.setting.seed, job.setting.lr_scale))
            raise DivergedError("the loss is nan", "extend", "train with a lower learning rate")
        return usual(job, row, common, bits)

    usual, limit = cells.train_method, 0.1
    monkeypatch.setattr(cells, "train_method", train)
    cell, judge = _cell(model, tmp_path, PHASE), Judge(WINDOWS, LPIPSConfig(), model)
    found = run_cell(cell, (5,), cell.budget.rates, judge)
    assert found["rate"] == 0.1 and found["tried"]["0.1"] > 0 == found["tried"]["0.2"] == found["tried"]["0.3"]
    assert cheap == [(5, 0.1), (5, 0.2), (5, 0.3)]
    assert run_cell(cell, (5,), cell.budget.rates, judge) == found and len(cheap) == 3
    limit = 0.0
    with pytest.raises(DivergedError, match="nan"):  # all rates do
        run_cell(cell._replace(scratch=tmp_path / "again"), (5,), cell.budget.rates, judge)


def test_where_the_next_rate_lies() -> None:
    assert beyond({1e-3: 1.0, 1e-2: 2.0}) == 0.1
    assert beyond({1e-3: 3.0, 1e-2: 2.0, 1e-1: 1.0}) == 1e-4
    assert beyond({1e-3: 1.0, 1e-2: 2.0, 1e-1: 1.0}) is None


def test_a_row_without_phases_tries_nothing(model: OneStepSR, tmp_path: Path, cheap: Ran) -> None:
    cell = _cell(model, tmp_path)
    found = run_cell(cell, (5,), (0.7, 0.2), Judge(WINDOWS, LPIPSConfig(), model))
    write_cell(cell, found, 5, WINDOWS, tmp_path / "out")
    assert read_json(tmp_path / "out" / "results.json") == found
    assert found["tried"] == {} and found["rate"] == 0 and len(cheap) == 1
    assert len(found["layers"]) > 50 and all(error > 0 for error in found["layers"].values())


def test_the_judge_gives_the_reference_full_marks(model: OneStepSR) -> None:
    judge = Judge(WINDOWS, LPIPSConfig(), model)
    scores = means(judge.scores(judge.images(model)))
    assert scores["one"]["psnr_to_fp"] == pytest.approx(80, abs=1e-3) and scores["one"]["lpips_random_to_fp"] == 0
    assert scores["all"] == scores["one"]
    assert means(judge.bicubic())["one"]["ssim"] == pytest.approx(1)
