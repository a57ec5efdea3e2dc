"""What a stage tells arrives, read back with MLflow's own client; and servers that go away disturb nothing."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow.entities import Run as Entity
from mlflow.tracking import MlflowClient
from PIL import Image

from qartsr.files import sha256_bytes, sha256_file, sha256_tree
from qartsr.tracking import Run, open_run
from qartsr.tracking.machine import Machine
from tests.pipelines.alive import until
from tests.relay import Relay
from tests.tracking.conftest import told

pytestmark = pytest.mark.services


@pytest.fixture()
def line(servers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """The way to MLflow, for a run that sends its metrics every fifth of a second."""
    monkeypatch.setattr("qartsr.tracking.run._SECONDS", 0.2)
    with Relay(servers["MLFLOW_TRACKING_URI"]) as relay:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", relay.address)
        yield relay
        monkeypatch.setenv("MLFLOW_TRACKING_URI", servers["MLFLOW_TRACKING_URI"])


@pytest.fixture()
def client(servers: dict[str, str]) -> MlflowClient:
    return MlflowClient(servers["MLFLOW_TRACKING_URI"])


def _entity(client: MlflowClient, profile: str) -> Entity:
    experiment = client.get_experiment_by_name(f"qartsr-{profile}")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    return found


def _history(client: MlflowClient, profile: str, key: str) -> list[tuple[int, float]]:
    run_id = _entity(client, profile).info.run_id
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, key))


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_metrics(client: MlflowClient, profile: str) -> None:
    with open_run(profile, "retrain", {}) as run:
        for step in range(1200):
            run.metrics({"loss": step / 2, "rate/skip": 1e-7}, step)
        run.metrics({"odd": math.nan}, 0)
        run.metrics({"odd": math.inf}, 1)
        run.metrics({"odd": -math.inf}, 2)
    assert _history(client, profile, "loss") == [(step, step / 2) for step in range(1200)]
    assert _history(client, profile, "rate/skip")[-1] == (1199, 1e-7)
    odd = _history(client, profile, "odd")
    assert math.isnan(odd[0][1]) and odd[1][1] > 1e308 and odd[2][1] < -1e308


def test_pictures_at_steps_are_mlflows_own(client: MlflowClient, profile: str) -> None:
    """Named as its own client names them, which its page reads; and the experiment is none of language models."""
    with open_run(profile, "retrain", {}) as run:
        run.pictures(np.full((3, 20, 30, 3), 7, np.uint8), 5)
    client.log_image(run.run_id, Image.new("RGB", (90, 20)), key="restored", step=5)
    paths = [file.path for file in client.list_artifacts(run.run_id, "images")]
    names = sorted(re.sub(r"\+\d{13}\+[0-9a-f-]{36}", "", path) for path in paths)
    plain = "images/restored+step+5+timestamp"
    assert names == [f"{plain}+compressed.webp"] * 2 + [f"{plain}.png"] * 2
    assert client.get_run(run.run_id).data.tags["mlflow.loggedImages"] == "True"
    experiment = client.get_experiment_by_name(f"qartsr-{profile}")
    assert experiment is not None and experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_gpus_are_asked_by_the_drivers_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '37, 1024, 70.5'\necho '0, 3, [N/A]'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    seen = {name: value for name, value in Machine().look().items() if "gpu" in name}
    assert seen == {
        "system/gpu_0_utilization_percentage": 37, "system/gpu_0_memory_usage_megabytes": 1024,
        "system/gpu_0_power_usage_watts": 70.5, "system/gpu_1_utilization_percentage": 0,
        "system/gpu_1_memory_usage_megabytes": 3,
    }  # fmt: skip
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert not [name for name in Machine().look() if "gpu" in name]


def test_metrics_do_not_wait_for_the_end(line: Relay, client: MlflowClient, profile: str) -> None:
    with open_run(profile, "retrain", {}) as run:
        run.metrics({"loss": 1.0}, 7)
        assert until(lambda: _entity(client, profile).data.metrics.get("loss") == 1.0)


def test_data_sets_and_the_machine(client: MlflowClient, profile: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(b"a")
    with open_run(profile, "one", {}) as run:
        run.data("data", tmp_path / "set", "training")
        (tmp_path / "set" / "manifest.json").write_text("{}")
        run.data("data", tmp_path / "set", "testing")
    found = _entity(client, profile)
    (tmp_path / "set" / "manifest.json").unlink()
    told = {each.dataset.digest: each.tags[0].value for each in found.inputs.dataset_inputs}
    assert told == {sha256_tree(tmp_path / "set")[:16]: "training", sha256_bytes(b"{}")[:16]: "testing"}
    assert 1 < found.data.metrics["system/process_memory_megabytes"] < 1e5
    assert 0 <= found.data.metrics["system/cpu_utilization_percentage"] <= 100


def test_tags_and_artifacts(client: MlflowClient, profile: str, tmp_path: Path) -> None:
    (tmp_path / "images" / "deep").mkdir(parents=True)
    for name in ("table.csv", "images/a b.png", "images/deep/ü.png"):
        (tmp_path / name).write_text(name)
    with open_run(profile, "evaluate@w4a4", {}) as run:
        run.tags({"sha256": "f" * 64, "version": 3})
        run.artifact(tmp_path / "table.csv")
        run.artifact(tmp_path / "table.csv", "tables/more")
        run.artifact(tmp_path / "images", "test")
    entity = _entity(client, profile)
    assert entity.data.tags["sha256"] == "f" * 64 and entity.data.tags["version"] == "3"
    for name, source in {
        "table.csv": "table.csv",
        "tables/more/table.csv": "table.csv",
        "test/images/a b.png": "images/a b.png",
        "test/images/deep/ü.png": "images/deep/ü.png",
    }.items():
        received = Path(client.download_artifacts(entity.info.run_id, name, str(tmp_path)))
        assert sha256_file(received) == sha256_file(tmp_path / source)


def test_a_refused_name_costs_nothing_else(
    line: Relay, client: MlflowClient, profile: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run(profile, "retrain", {}) as run:
        for _ in range(4):
            run.metrics({"psnr@4": 1.0})
            time.sleep(0.25)
        run.metrics({"psnr": 2.0})
    assert _entity(client, profile).info.status == "FINISHED"
    assert told(_entity(client, profile).data.metrics) == {"psnr": 2.0}
    (warning,) = _warnings(caplog)
    assert warning.startswith("MLflow is not told everything: ") and "psnr@4" in warning


def test_a_missing_artifact_is_told(client: MlflowClient, profile: str, caplog: pytest.LogCaptureFixture) -> None:
    with open_run(profile, "retrain", {}) as run:
        run.artifact(Path("no/such/file"))
    assert _entity(client, profile).info.status == "FINISHED"
    assert [line for line in _warnings(caplog) if "no/such/file fails" in line]


@pytest.mark.parametrize("silent", [False, True])
def test_a_server_that_goes_away(line: Relay, profile: str, caplog: pytest.LogCaptureFixture, silent: bool) -> None:
    with open_run(profile, "retrain", {"a": 1}) as run:
        assert isinstance(run, Run)
        run._server.timeout = 0.5
        (line.mute if silent else line.cut)()
        began = time.monotonic()
        for step in range(50):
            run.metrics({"loss": 1.0}, step)
            run.tags({"step": step})
    assert time.monotonic() - began < 8, "three answers are waited for, then two at the end"
    (warning,) = _warnings(caplog)
    assert warning.startswith(f"MLflow is not told everything: {line.address}: MLflow does not answer")


def test_a_server_that_comes_back_hears_everything(line: Relay, client: MlflowClient, profile: str) -> None:
    with open_run(profile, "retrain", {}) as run:
        assert isinstance(run, Run)
        run.metrics({"loss": 0.0}, 0)
        line.cut()
        for step in range(1, 6):
            run.tags({"away": step})
            run.metrics({"loss": float(step)}, step)
        assert until(lambda: run._mlflow._failures > 3), "the caller gives up after three; this one is the thread's"
        line.mend()
        assert until(lambda: len(_history(client, profile, "loss")) == 6, 30)
        run.tags({"back": True})
        run.metrics({"loss": 6.0}, 6)
    entity = _entity(client, profile)
    assert entity.info.status == "FINISHED"
    assert (entity.data.tags["away"], entity.data.tags["back"]) == ("5", "True")
    assert _history(client, profile, "loss") == [(step, float(step)) for step in range(7)]


def test_a_store_that_is_away_costs_the_artifacts_only(
    servers: dict[str, str],
    client: MlflowClient,
    profile: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("x")
    with Relay(servers["AWS_ENDPOINT_URL_S3"]) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.address)
        with open_run(profile, "retrain", {}) as run:
            run.artifact(tmp_path / "file", "before")
            store.cut()
            began = time.monotonic()
            for _ in range(20):
                run.artifact(tmp_path / "file")
            assert time.monotonic() - began < 10
            run.metrics({"loss": 1.0})
            run.tags({"still": "here"})
    entity = _entity(client, profile)
    assert entity.info.status == "FINISHED"
    assert told(entity.data.metrics) == {"loss": 1.0} and entity.data.tags["still"] == "here"
    assert [each.path for each in client.list_artifacts(entity.info.run_id)] == ["before"]
    (warning,) = _warnings(caplog)
    assert "the S3 store does not answer" in warning
