"""The flow with a real Prefect server, real DVC and real processes. The tests of this file build on one another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.promote import promote_model, roll_back_model
from pipelines.reproduce import reproduce
from tests.pipelines.alive import alive, until

pytestmark = [pytest.mark.long, pytest.mark.pipeline]  # each goes on from what the one before left


class Event(NamedTuple):
    """One execution of a stage."""

    name: str
    began: float
    ended: float


@pytest.fixture(autouse=True)
def at_home(toy: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(toy)
    for leftover in [*toy.glob("fail-*"), *toy.glob("hang-*"), *toy.glob("started-*"), *toy.glob("events.log")]:
        leftover.unlink()
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        yield


def _run(**parameters: Any) -> State[Any]:
    state = reproduce(**parameters, return_state=True)
    assert isinstance(state, State)
    return state


def _events(toy: Path) -> dict[str, Event]:
    lines = (toy / "events.log").read_text().splitlines() if (toy / "events.log").exists() else []
    events = [Event(name, float(began), float(ended)) for name, began, ended in map(str.split, lines)]
    assert len({event.name for event in events}) == len(events), "a stage ran twice"
    return {event.name: event for event in events}


def _change(toy: Path, old: str, new: str) -> None:
    text = (toy / "params.yaml").read_text()
    assert text.count(old) == 1
    (toy / "params.yaml").write_text(text.replace(old, new))


def _log_of(state: State[Any]) -> list[str]:
    """What Prefect shows of a run; the client sends logs every few seconds."""
    run = state.state_details.flow_run_id
    assert run is not None
    with get_client(sync_client=True) as client:
        for _ in range(60):
            logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])))
            if any("ran" in log.message or "hello" in log.message for log in logs):
                break
            time.sleep(0.25)
        return [log.message for log in logs]


def _artifacts(state: State[Any]) -> dict[str, str]:
    run = state.state_details.flow_run_id
    assert run is not None
    with get_client(sync_client=True) as client:
        made = client.read_artifacts(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
        return {artifact.key or "": str(artifact.data) for artifact in made}


def test_first_run_respects_the_graph_and_runs_lanes_side_by_side(toy: Path) -> None:
    (toy / "metrics").mkdir()
    (toy / "metrics" / "fp.json").write_text('{"photographs": {"psnr": 30.5, "sets": {}}}')  # as `reference` leaves it
    (toy / "together").touch()  # each lane waits for the other to have begun: one after the other would fail
    state = _run(lanes=2)
    (toy / "together").unlink()
    assert state.is_completed(), state.message
    events = _events(toy)
    assert set(events) == {"prepare", "lane-w4a4", "lane-w3a3", "join"}
    for lane in ("lane-w4a4", "lane-w3a3"):
        assert events["prepare"].ended <= events[lane].began
        assert events[lane].ended <= events["join"].began
    assert "hello from lane-w4a4" in _log_of(state)
    run = state.state_details.flow_run_id
    assert run is not None
    with get_client(sync_client=True) as client:
        made = client.read_flow_run(run)
        assert made.name == "sample" and {"sample", "w4a4", "w3a3"} <= set(made.tags)  # of its project
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
        assert {task.name: task.tags for task in tasks}["lane@w4a4"] == ["w4a4"]
    artifacts = _artifacts(state)
    assert "hello from join" in artifacts["log-join"]
    assert artifacts["results"].startswith("| pictures | model |") and "| 30.50 |" in artifacts["results"]


def test_promotions_have_names_that_say_what_they_do(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # so that they are refused at once
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    states = {
        "promote w4a4 version 3": promote_model("w4a4", 3, str(toy), return_state=True),
        "promote w3a3": promote_model("w3a3", workspace=str(toy), return_state=True),
        "rollback w4a4": roll_back_model("w4a4", str(toy), return_state=True),
    }
    with get_client(sync_client=True) as client:
        for name, state in states.items():
            run = state.state_details.flow_run_id
            assert state.is_failed() and run is not None
            made = client.read_flow_run(run)
            assert made.name == name and made.tags == ["sample", name.split()[1]]


def test_second_run_starts_nothing(toy: Path) -> None:
    state = _run(lanes=2)
    assert state.is_completed() and state.message == "0 stages ran"
    assert _events(toy) == {}


def test_a_failed_stage_fails_the_flow_and_stops_what_depends_on_it(toy: Path) -> None:
    _change(toy, "seed: 0\n\ncompute", "seed: 1\n\ncompute")
    (toy / "fail-lane-w3a3").touch()
    state = _run(lanes=1)
    assert state.is_failed() and state.message is not None
    assert "this is why it failed" in state.message and "lane@w3a3" in state.message
    assert "line 29" in state.message and "line 3\n" not in state.message, "the last lines, not all of them"
    assert "not run: join" in state.message
    events = _events(toy)
    assert set(events) == {"prepare", "lane-w4a4"}, "the healthy lane goes on, join does not"
    assert "line 3\n" in _artifacts(state)["log-lane-w3a3"]


def test_interrupt_ends_the_stage(toy: Path, prefect_server: str, root: Path) -> None:
    (toy / "hang-lane-w3a3").touch()
    environment = {**os.environ, "PREFECT_API_URL": prefect_server, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "pipelines.reproduce", "--lanes", "2"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=environment, text=True, **streams) as flow:
        until(lambda: (toy / "pid").exists() or flow.poll() is not None, 60)
        flow.send_signal(signal.SIGINT)
        output, _ = flow.communicate(timeout=60)
    assert flow.returncode == 130, output
    assert "lane@w3a3 | hello from lane-w3a3" in output
    assert "interrupted" in output.splitlines()[-1]
    assert until(lambda: not alive(int((toy / "pid").read_text())))


def test_a_second_flow_in_one_clone_waits(toy: Path, prefect_server: str, root: Path) -> None:
    """DVC locks the files of a running stage, whatever ``--wait-for-lock`` says."""
    _change(toy, "seed: 1\n\ncompute", "seed: 2\n\ncompute")
    (toy / "pid").unlink(missing_ok=True)
    (toy / "hang-prepare").touch()
    environment = {**os.environ, "PREFECT_API_URL": prefect_server, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "pipelines.reproduce", "--lanes", "2"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=environment, text=True, **streams) as first:
        assert until(lambda: (toy / "pid").exists() or first.poll() is not None, 90)
        with subprocess.Popen(command, env=environment, text=True, **streams) as second:
            assert second.stdout is not None
            assert any("waiting for it" in line for line in second.stdout), "it did not wait"
            (toy / "hang-prepare").unlink()
            rest, _ = second.communicate(timeout=120)
        output, _ = first.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (0, 0), output + rest
    assert set(_events(toy)) == {"prepare", "lane-w4a4", "lane-w3a3", "join"}, "each ran once"


def test_a_stage_that_was_killed_is_tried_again(toy: Path) -> None:
    _change(toy, "seed: 2\n\ncompute", "seed: 3\n\ncompute")
    (toy / "pid").unlink(missing_ok=True)
    (toy / "hang-prepare").touch()

    def kill() -> None:
        until(lambda: (toy / "pid").exists(), 90)
        (toy / "hang-prepare").unlink()
        os.kill(int((toy / "pid").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    state = _run(lanes=2, workspace=str(toy))
    killer.join()
    assert state.is_completed(), state.message
    assert set(_events(toy)) == {"prepare", "lane-w4a4", "lane-w3a3", "join"}
