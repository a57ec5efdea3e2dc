"""A row becomes a trained model: the budget, what trains, zero phases, a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.study.cell import Job, train_method
from qartsr.config import Bits
from qartsr.config.method import Budget, CommonConfig, MethodRow, lasting, training
from qartsr.config.training import LPIPSConfig
from qartsr.quantize import quant_layers
from qartsr.training.optimizer import Setting
from tests.training.tiny import one_step

COMMON = CommonConfig(edge_bits=8, edge_layers=("unet.conv_in",))
MSE = {"lpips": 0.0, "mse": 1.0}
ALL = {"transform": 1.0, "skip": 1.0, "adapter": 1.0, "quantizer": 1.0}


def _row(*phases: dict[str, Any], **layer: Any) -> MethodRow:
    parts = {"weight": {"kind": "minmax", "granularity": "channel"}, "input": {"kind": "minmax"}, **layer}
    return MethodRow.model_validate({"title": "row", "says": "It is.", "layer": parts, "phases": phases})


def _modules(**changes: Any) -> dict[str, Any]:
    return {"kind": "modules", "share": 1.0, "rates": ALL, "loss": MSE, **changes}


def _model(**changes: Any) -> dict[str, Any]:
    return {"kind": "model", "share": 1.0, "rates": ALL, "loss": MSE, **changes}


LBQ = {"weight": {"kind": "lbq", "granularity": "channel"}, "input": {"kind": "lbq"}}


@pytest.fixture()
def job(tmp_path: Path) -> Job:
    model = one_step()
    lq: Tensor = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return Job(model, lq, 2, 1, Setting(LPIPSConfig(), "none", 1e-3, 0), tmp_path, 0.0)


def test_a_row_without_phases_is_calibrated_and_whole(job: Job) -> None:
    trained = train_method(job, _row(), COMMON, Bits(4, 4))
    assert trained.samples == 0 and trained.rows == ()
    assert set(quant_layers(trained.model)) == {name for unit in job.teacher.segments() for name in unit.layers}


def test_shares_are_of_one_budget() -> None:
    row = _row(_modules(share=0.5), _model(share=0.25), _model(share=0.25), **LBQ)
    budget = Budget(steps=100, batch=3, lr=0.1)
    whole, first = (lasting(training(phases, budget), 13) for phases in (row.phases, row.phases[:1]))
    assert [phase.steps for phase in whole] == [3, 25, 36]  # 3 for each of 13 modules
    assert all((phase.share, phase.batch, phase.lr) == (0, 3, 0.1) for phase in whole)
    assert first == whole[:1]  # what the stage quantize sees of them
    (alone,) = lasting(training(_row(_modules(), **LBQ).phases, budget), 13)
    assert alone.steps == 7


def test_rates_of_zero_freeze_a_role(job: Job) -> None:
    row = _row(_model(rates=ALL | {"transform": 0.0}), **LBQ, transform={"kind": "channel_affine"})
    still = train_method(job._replace(steps=0, folder=job.folder / "a"), row, COMMON, Bits(4, 4)).model
    moved = train_method(job._replace(folder=job.folder / "b"), row, COMMON, Bits(4, 4)).model
    changed = {n for n, p in moved.named_parameters() if not torch.equal(p, dict(still.named_parameters())[n])}
    assert any(".input_quantizer." in name for name in changed)
    assert not any(".transform." in name for name in changed)


def test_an_interrupted_row_goes_on_with_the_phase_it_was_at(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    row = _row(_model(share=0.5, latent_loss=1.0), _model(share=0.5, feature_loss=1.0), **LBQ)
    whole = train_method(job._replace(folder=job.folder / "whole"), row, COMMON, Bits(2, 2))
    parts = job._replace(folder=job.folder / "parts")

    def die(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("experiments.study.cell.round_for_storage", die)
        train_method(parts, row, COMMON, Bits(2, 2))
    monkeypatch.setattr("qartsr.training.phases.extend", die)  # nothing is trained again
    again = train_method(parts, row, COMMON, Bits(2, 2))
    assert [list(row.items()) for row in again.rows] == [list(row.items()) for row in whole.rows]  # the curve's columns
    values = zip(again.model.state_dict().values(), whole.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in values)


def test_modules_phase_quantizes_as_it_goes(job: Job) -> None:
    trained = train_method(job._replace(steps=11), _row(_modules(), **LBQ), COMMON, Bits(4, 4))
    assert [row["module"] for row in trained.rows] == [unit.name for unit in reversed(job.teacher.segments())]
    assert trained.samples == 11
