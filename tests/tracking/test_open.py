"""Beginning a run: where it goes, and that its absence stops nothing."""

from __future__ import annotations

import logging
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run as Entity
from mlflow.tracking import MlflowClient

from qartsr.config import load_params
from qartsr.tracking import PARENT, NullRun, Run, open_run
from tests.relay import Relay, closed_port
from tests.tracking.conftest import told


def _runs(profile: str) -> list[Entity]:
    client = MlflowClient()
    experiment = client.get_experiment_by_name(f"qartsr-{profile}")
    return client.search_runs([experiment.experiment_id]) if experiment else []


def _only(profile: str) -> Entity:
    (run,) = _runs(profile)
    return run


@pytest.mark.services
def test_where_it_goes(servers: dict[str, str], profile: str) -> None:
    with open_run(profile, "quantize@w4a4", {}) as run:
        assert isinstance(run, Run)
        assert _only(profile).info.status == "RUNNING"
    entity = _only(profile)
    assert entity.info.status == "FINISHED" and entity.info.run_name == "quantize@w4a4"
    assert entity.info.end_time >= entity.info.start_time > (time.time() - 600) * 1000
    assert entity.info.artifact_uri.startswith("s3://qartsr-mlflow/")
    assert entity.data.tags["mlflow.source.name"] == "stages.quantize"


@pytest.mark.services
def test_tags_to_filter_by_and_the_flow_as_parent(
    servers: dict[str, str], root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    params = load_params(root / "params.yaml")
    monkeypatch.chdir(root)
    with open_run(params.profile, "reproduce", {}) as parent:
        monkeypatch.setenv(PARENT, parent.run_id)
        with open_run(params.profile, "evaluate@w3a3", {}) as child:
            pass
    client = MlflowClient()
    tags = client.get_run(child.run_id).data.tags
    assert tags["mlflow.parentRunId"] == parent.run_id and (tags["bits"], tags["method"]) == ("w3a3", "qartsr")
    assert (tags["rank"], tags["seed"]) == (str(params.method.layer.skip.rank), str(params.seed))
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True)
    if head.returncode == 0:
        assert tags["commit"] == tags["mlflow.source.git.commit"] == head.stdout.strip()
    monkeypatch.setenv(PARENT, "")
    monkeypatch.chdir(tmp_path)
    with open_run(params.profile, "data", {}) as alone:
        pass
    assert not {"mlflow.parentRunId", "bits", "rank", "commit"} & set(client.get_run(alone.run_id).data.tags)


@pytest.mark.services
def test_parameters_are_flat_and_any_number(servers: dict[str, str], profile: str) -> None:
    values = {
        "lr": {"skip": 1e-3, "adapter": {"first": 2}},
        "bits": ("w4a4", "w2a2"),
        "nothing": None,
        "empty": "",
        "long": "x" * 9000,
        **{f"many.{n}": n for n in range(250)},
    }
    with open_run(profile, "data", values):
        pass
    params = _only(profile).data.params
    assert {"lr.skip": "0.001", "lr.adapter.first": "2", "nothing": "None", "empty": ""}.items() <= params.items()
    assert params["bits"] == '["w4a4", "w2a2"]'
    assert params["long"] == "x" * 499 + "…"
    assert len(params) == 256 and params["many.249"] == "249"


@pytest.mark.services
@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_how_it_ends(servers: dict[str, str], profile: str, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), open_run(profile, "data", {}) as run:
        run.metrics({"loss": 1.0})
        raise error
    assert _only(profile).info.status == status
    assert told(_only(profile).data.metrics) == {"loss": 1.0}


@pytest.mark.services
def test_many_beginners_share_one_experiment(servers: dict[str, str], profile: str) -> None:
    def begin(number: int) -> bool:
        with open_run(profile, f"evaluate@{number}", {}) as run:
            return isinstance(run, Run)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(begin, range(8)))
    assert len(_runs(profile)) == 8


def test_no_address_no_run_and_no_word(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with open_run("test", "data", {"a": 1}) as run:
        assert isinstance(run, NullRun)
        run.metrics({"loss": float("nan")})
        run.tags({"a": 1})
    assert caplog.records == []


def _untracked(caplog: pytest.LogCaptureFixture, seconds: float, profile: str = "test") -> str:
    """Run a stage that must not be disturbed; returns the one line that is said."""
    began = time.monotonic()
    with caplog.at_level(logging.WARNING), open_run(profile, "data", {"a": 1}) as run:
        assert isinstance(run, NullRun)
        run.metrics({"loss": 1.0})
    assert time.monotonic() - began < seconds
    (record,) = caplog.records
    message = record.getMessage()
    assert record.levelname == "WARNING" and len(message.splitlines()) == 1
    assert message.startswith("data: this run is not tracked: ")
    return message


@pytest.mark.parametrize("address", ["file:./mlruns", "sqlite:///mlflow.db", "nonsense"])
def test_an_address_that_is_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert "is not the address of an MLflow server" in _untracked(caplog, 5)


def test_nobody_there(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with closed_port() as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert f"{address}: MLflow does not answer" in _untracked(caplog, 5)


def test_somebody_there_who_never_answers(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with Relay("http://127.0.0.1:1") as relay:
        relay.mute()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", relay.address)
        assert "MLflow does not answer (timed out)" in _untracked(caplog, 6)


@pytest.mark.services
def test_an_experiment_in_the_bin(servers: dict[str, str], profile: str, caplog: pytest.LogCaptureFixture) -> None:
    mlflow.delete_experiment(mlflow.create_experiment(f"qartsr-{profile}"))
    assert "MLflow refuses" in _untracked(caplog, 30, profile)
