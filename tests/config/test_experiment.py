"""Rows that make no sense are refused with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from qartsr.config import load_config
from qartsr.config.experiment import Experiments
from qartsr.errors import QartsrError


@pytest.fixture()
def values(root: Path) -> Any:
    return yaml.safe_load((root / "experiments" / "params.yaml").read_text())


def _refused(values: Any, path: Path) -> str:
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(QartsrError) as caught:
        load_config(Experiments, path)
    return str(caught.value)


def test_every_row_says_what_it_is(values: Any) -> None:
    assert all(row["says"].endswith(".") for row in values["methods"].values())


def test_a_modules_phase_comes_first(values: Any, tmp_path: Path) -> None:
    values["methods"]["qartsr"]["phases"] = list(reversed(values["methods"]["qartsr"]["phases"]))
    assert "it must be the first" in _refused(values, tmp_path / "p.yaml")


def test_shares_add_up(values: Any, tmp_path: Path) -> None:
    values["methods"]["lsq"]["phases"] = [{**values["methods"]["lsq"]["phases"][0], "share": 0.7}]
    assert "add up to 0.7, not 1" in _refused(values, tmp_path / "p.yaml")


def test_tables_name_rows(values: Any, tmp_path: Path) -> None:
    values["tables"]["table3"].append("lqs")
    assert "'lqs', which is not under methods" in _refused(values, tmp_path / "p.yaml")


def test_timesteps_have_backbones(values: Any, tmp_path: Path) -> None:
    values["methods"]["lsq"]["timestep"] = 5
    assert "lsq.timestep 5 is not among" in _refused(values, tmp_path / "p.yaml")


def test_an_unknown_key_is_named_with_its_neighbour(values: Any, tmp_path: Path) -> None:
    values["budget"]["step"] = 3
    assert "did you mean 'steps'" in _refused(values, tmp_path / "p.yaml")


def test_ablations_need_a_rate(values: Any, tmp_path: Path) -> None:
    values["tables"]["table4_bits"].append("w5a5")
    assert "table4_bits has w5a5, whose rate table3_bits does not choose" in _refused(values, tmp_path / "p.yaml")


def test_tables_have_what_they_compare_with(values: Any, tmp_path: Path) -> None:
    values["tables"]["longer"].remove("qartsr")
    assert "must name it" in _refused(values, tmp_path / "p.yaml")


@pytest.mark.parametrize("rates", [[1e-2, 1e-3], [1e-3, 1e-3], [0.0, 1e-3]])
def test_rates_ascend(values: Any, tmp_path: Path, rates: list[float]) -> None:
    values["budget"]["rates"] = rates
    assert "rates are positive and ascend" in _refused(values, tmp_path / "p.yaml")


def test_more_rates_need_a_step(values: Any, tmp_path: Path) -> None:
    values["budget"] |= {"rates": [1e-3], "more_rates": 2}
    assert "need at least two" in _refused(values, tmp_path / "p.yaml")


def test_the_budget_is_fair(values: Any) -> None:
    """At least 1600 samples, rates over a factor of 1000 with room beyond, three seeds, two ranks, three bit-widths."""
    budget, tables, rows = values["budget"], values["tables"], values["methods"]
    assert budget["steps"] >= 400 and budget["batch"] == 4 and len(values["seeds"]) == 3
    assert budget["rates"][-1] / budget["rates"][0] >= 999 and budget["more_rates"] > 0
    assert tables["table3_bits"] == ["w4a4", "w3a3", "w2a2"]
    ranks: dict[str, set[int]] = {}
    for name in tables["table3"]:
        rank = rows[name]["layer"].get("skip", {}).get("rank")
        if rank:
            ranks.setdefault(name.removesuffix("-r16"), set()).add(rank)
    assert ranks and all(found == {4, 16} for found in ranks.values()), ranks


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(QartsrError, match="is not UTF-8 text"):
        load_config(Experiments, tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seeds", [0, 1, 0], "seeds: one stands twice"),
        ("sets", "all", "sets.all: name it with letters"),
        ("sets", "../x", "sets.../x: name it with letters"),
        ("sets", "a b", "sets.a b: name it with letters"),
        ("methods", "maxmin", "methods has no maxmin"),
    ],
)
def test_names_tell_apart(values: Any, tmp_path: Path, key: str, value: Any, said: str) -> None:
    if key == "seeds":
        values["seeds"] = value
    elif key == "sets":
        values["sets"][value] = values["sets"]["photographs"]
    else:
        values["tables"]["table3"].remove("maxmin")
        values["methods"]["other"] = values["methods"].pop("maxmin")
    assert said in _refused(values, tmp_path / "p.yaml")


def test_a_phase_without_a_loss_trains_nothing(values: Any, tmp_path: Path) -> None:
    values["methods"]["lsq"]["phases"][0]["loss"] = {"lpips": 0.0, "mse": 0.0}
    assert "there is nothing to train by" in _refused(values, tmp_path / "p.yaml")
    values["methods"]["lsq"]["phases"][0]["latent_loss"] = 1.0
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(values))
    load_config(Experiments, tmp_path / "p.yaml")
