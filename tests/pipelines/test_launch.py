"""Words before a stage's command, and what is a lost machine."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pipelines import console
from pipelines.console import keep_artifact, notify
from pipelines.process import Options, lost
from qartsr.config import parse_params
from tests.relay import Trickle, closed_port

SRUN = "srun --job-name=qartsr-{name} --gres=gpu:1"


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("quantize@w4a4", ["srun", "--job-name=qartsr-quantize@w4a4", "--gres=gpu:1"]),
        ("publish", []),
        ("retrain", ["salloc", "--nodes=2"]),
        ("b/dvc.yaml:compare@lsq", ["srun", "--job-name=qartsr-b-dvc.yaml:compare@lsq", "--gres=gpu:1"]),
    ],
)  # fmt: skip
def test_the_longest_pattern_that_matches_counts(stage: str, words: list[str]) -> None:
    options = Options({"*": SRUN, "publish": "", "re*n": "salloc --nodes=2"})
    assert options.prefix(stage) == words
    assert Options({}).prefix(stage) == []


def test_a_launcher_is_a_matter_of_params(root: Path) -> None:
    values = yaml.safe_load((root / "configs" / "sample.yaml").read_text())
    values["compute"]["launcher"] = {"*": SRUN}
    assert parse_params(values, "params.yaml").compute.launcher == {"*": SRUN}


@pytest.mark.parametrize(
    ("status", "line", "found"),
    [
        (255, "ERROR: failed to reproduce 'x': failed to run: python x, exited with -9", True),
        (255, "ERROR: failed to reproduce 'x': failed to run: python x, exited with 143", True),
        (255, "ERROR: failed to reproduce 'x': failed to run: python x, exited with 1", False),
        (255, "error: params.yaml: seed: too large; correct that value.", False),
        (1, "srun: error: Node failure on gpu2", True),
        (137, "srun: error: gpu1: task 0: Killed", True),
        (143, "", True),
        (255, "exited with 130", False),
    ],
)
def test_only_what_was_lost_is_tried_again(status: int, line: str, found: bool) -> None:
    assert lost(status, ["hello", line]) is found


def test_whoever_listens_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[dict[str, str]] = []

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Ear) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setenv("QARTSR_NOTIFY_URL", f"http://127.0.0.1:{server.server_port}")
        flow, run = SimpleNamespace(name="reproduce"), SimpleNamespace(name="odd-owl", id="1")
        notify(flow, run, SimpleNamespace(name="Failed", message="join failed"))
    assert heard[0]["state"] == "Failed" and heard[0]["text"] == "reproduce odd-owl: Failed. join failed"
    monkeypatch.setenv("QARTSR_NOTIFY_URL", "nonsense")
    notify(flow, run, SimpleNamespace(name="Failed", message=None))


def test_work_that_is_done_does_not_fail_for_want_of_a_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As seen with a server away for 45 s: the stage was over, and the run failed with its log's ConnectError."""

    def away(*_: object, **__: object) -> None:
        raise ConnectionError("[Errno 111] Connection refused")

    monkeypatch.setattr(console, "create_markdown_artifact", away)
    logger = console.logging.getLogger("prefect")
    monkeypatch.setattr(logger, "propagate", True)
    keep_artifact("text", "key", "output of join")
    assert "Prefect was not given 'output of join': [Errno 111] Connection refused" in caplog.text


def test_a_server_that_is_not_there_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Prefect's client tries for minutes: nobody there, somebody silent, somebody who speaks otherwise."""
    monkeypatch.setattr(console, "_ANSWER", 0.3)
    with closed_port() as nobody, Trickle(b"") as silent, Trickle(b"\0\r\n\r\n") as strange:
        for address in (nobody, silent.address, strange.address, "nonsense"):
            monkeypatch.setenv("PREFECT_API_URL", f"{address}/api")
            with pytest.raises(ConnectionError, match=r"/api does not answer \("):
                console.demand_server()
    monkeypatch.setenv("PREFECT_API_URL", "")
    console.demand_server()
