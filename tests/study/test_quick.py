"""The experiments from end to end in their quick variant, on a tiny model: every stage, a kill, all tables."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import _cell, ablate, backbones, compare, longer, samples, table1, table3, table4, timesteps
from qartsr.config import load_config
from qartsr.config.data import DataConfig
from qartsr.config.experiment import Experiments
from qartsr.data import write_dataset
from qartsr.files import read_json
from qartsr.models import save_model
from tests.training.tiny import one_step


@pytest.fixture()
def run(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Calls a stage as its command line would; one seed, one rate less: the machine is what is short."""
    values: Any = yaml.safe_load((root / "experiments" / "quick.yaml").read_text())
    values["seeds"], values["tables"]["table3"] = [0], ["maxmin", "efficientdm", "qartsr"]
    values["budget"]["more_rates"] = 0
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(values))
    images = {"source": "photographs", "train": ["camera"], "test": ["chelsea"]}
    write_dataset(DataConfig.model_validate({"images": images}), 0, tmp_path / "data")
    save_model(one_step(), tmp_path / "model")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def call(module: Any, *words: str, **folders: str) -> None:
        named = [word for key, folder in folders.items() for word in (f"--{key}", str(tmp_path / folder))]
        monkeypatch.setattr(sys, "argv", ["stage", "--params", str(tmp_path / "quick.yaml"), *words, *named])
        module.main()

    return call


def test_the_quick_variant_is_valid(root: Path) -> None:
    load_config(Experiments, root / "experiments" / "quick.yaml")


@pytest.mark.slow
def test_from_samples_to_tables(run: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(samples, data="data", out="samples")
    run(backbones, model="model", data="data", out="backbones", work="work")
    run(timesteps, backbones="backbones", samples="samples", out="timesteps", work="work")
    given = {"backbones": "backbones", "samples": "samples", "work": "work"}

    def die(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_cell, "write_cell", die)
        run(compare, "--method", "efficientdm", "--bits", "w2a2", out="compared/efficientdm-w2a2", **given)
    with monkeypatch.context() as patch:  # what was trained is not trained again
        patch.setattr("experiments.study.cell.train_method", die)
        run(compare, "--method", "efficientdm", "--bits", "w2a2", out="compared/efficientdm-w2a2", **given)
    for method in ("maxmin", "efficientdm", "qartsr"):
        for bits in ("w4a4", "w2a2"):
            if not (tmp_path / f"compared/{method}-{bits}").exists():
                run(compare, "--method", method, "--bits", bits, out=f"compared/{method}-{bits}", **given)
    ours = {**given, "ours": "compared/qartsr-w2a2"}
    run(ablate, "--method", "no-phi", "--bits", "w2a2", out="ablated/no-phi-w2a2", **ours)
    for method in ("qartsr", "no-phi"):
        run(longer, "--method", method, "--bits", "w2a2", out=f"longer/{method}-w2a2", **ours)
    run(table1, timesteps="timesteps", out="table1")
    tables = {"compared": "compared", "timesteps": "timesteps", "backbones": "backbones", "samples": "samples"}
    run(table3, out="table3", **tables)
    run(table4, compared="compared", ablated="ablated", longer="longer", out="table4")
    found = read_json(tmp_path / "compared/efficientdm-w2a2/results.json")
    assert set(found["tried"]) == {"0.001", "0.01"} and found["rate"] in (0.001, 0.01)
    assert all((tmp_path / f"table{n}/table{n}.md").stat().st_size > 200 for n in (1, 3, 4))
