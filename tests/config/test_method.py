"""One schema of methods: every row of the experiments is a method of params.yaml, and phases last what they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from qartsr.cli.configure import with_method
from qartsr.config import load_config, parse_params
from qartsr.config.experiment import Experiments
from qartsr.config.method import Budget, MethodRow, Training, lasting, training
from qartsr.errors import QartsrError

RATES = {"transform": 1.0, "skip": 1.0, "adapter": 1.0, "quantizer": 1.0}


@pytest.fixture()
def profile(root: Path) -> str:
    return (root / "configs" / "sample.yaml").read_text()


def test_every_row_is_a_method_of_the_pipeline(root: Path, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    rows = load_config(Experiments, Path("experiments/params.yaml")).methods
    pasted = yaml.safe_load((root / "experiments" / "params.yaml").read_text())["methods"]
    for name in ("passionsr", "quantvsr", "efficientdm", "svdquant", "qartsr", "maxmin"):
        written = yaml.safe_load(with_method(profile, name))
        params = parse_params(written, name)
        assert params.method == rows[name]
        assert params == parse_params(yaml.safe_load(profile) | {"method": pasted[name]}, name)
        assert params.method.planned(params.common).edge_layers == params.common.edge_layers != ()
    for row in rows.values():
        lasting(training(row.phases, params.budget), 15)


def test_a_row_of_another_timestep_is_refused(root: Path, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(QartsrError, match=r"method.timestep is 999 but retrain.timestep 1; make them equal"):
        parse_params(yaml.safe_load(with_method(profile, "maxmin-t999")), "p.yaml")


@pytest.mark.parametrize(
    ("phases", "sentence"),
    [
        ([{"kind": "model"}], "a phase needs a share of the budget, or steps of its own"),
        ([{"kind": "model", "share": 1.0, "steps": 3}], "not both"),
        ([{"kind": "model", "share": 0.5}, {"kind": "model", "steps": 3}], "give all of them the same"),
        ([{"kind": "model", "share": 0.5}], "add up to 0.5, not 1"),
        ([{"kind": "model", "steps": 3}, {"kind": "modules", "steps": 3}], "must be the first"),
    ],
)
def test_phases_that_make_no_sense(profile: str, phases: list[dict[str, Any]], sentence: str) -> None:
    values = yaml.safe_load(profile)
    values["method"]["phases"] = [{"rates": RATES, "loss": {}, **phase} for phase in phases]
    with pytest.raises(QartsrError, match=sentence):
        parse_params(values, "p.yaml")


def test_phases_with_steps_ignore_the_budgets() -> None:
    def asked(budget: Budget) -> Training:
        phase = {"kind": "modules", "steps": 2, "rates": RATES, "loss": {}, "batch": 5}
        layer = {"weight": {"kind": "minmax"}, "input": {"kind": "minmax"}}
        row = {"title": "t", "layer": layer, "phases": [phase, {**phase, "kind": "model", "lr": 3}]}
        return training(MethodRow.model_validate(row).phases, budget)

    found = asked(Budget(steps=100, batch=1, lr=0.1))
    assert [(phase.steps, phase.batch, phase.lr) for phase in lasting(found, 13)] == [(2, 5, 0.1), (2, 5, 3.0)]
    assert found == asked(Budget(steps=999, batch=9, lr=0.1))  # so an edit of what is not used makes nothing stale
