"""The object store as a service, from start to stop. The tests of this file build on one another."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from qartsr.errors import QartsrError
from qartsr.services import start, status, stop
from qartsr.services.record import read_record
from tests.pipelines.alive import until
from tests.services.looking import command, listening, processes, store_of

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the services."""
    root = tmp_path_factory.mktemp("home") / "it's a b"
    yield root
    stop(root)


@pytest.fixture()
def other(tmp_path: Path) -> Iterator[Path]:
    """The folder of other services, which do not outlive the test."""
    yield tmp_path / "other"
    stop(tmp_path / "other")


def _port(environment: dict[str, str]) -> int:
    return urlsplit(environment["AWS_ENDPOINT_URL_S3"]).port or 0


def _keep(environment: dict[str, str], folder: Path, text: str) -> None:
    (folder / "kept").write_text(text)
    store_of(environment).upload(folder / "kept", "qartsr", "kept")


def _kept(environment: dict[str, str], folder: Path) -> str:
    store_of(environment).download("qartsr", "kept", folder / "received")
    return (folder / "received").read_text()


def test_a_started_store_works(home: Path, tmp_path: Path) -> None:
    reports: list[dict[str, str]] = []
    environment = start(home, ("s3",), lambda states: reports.append(dict(states)))
    assert status(home) == {"s3": environment["AWS_ENDPOINT_URL_S3"], "mlflow": "stopped", "prefect": "stopped"}
    assert reports[-1]["s3"].startswith(environment["AWS_ENDPOINT_URL_S3"])
    assert len(processes(home)) == 4
    store_of(environment).demand("qartsr-mlflow")
    _keep(environment, tmp_path, "before the stop")
    assert not (home / "mlflow").exists(), "asking for the status makes no folders"


def test_starting_again_changes_nothing(home: Path) -> None:
    before = read_record(home, "s3")
    began = time.monotonic()
    assert start(home, ("s3",))["AWS_ENDPOINT_URL_S3"] == status(home)["s3"]
    assert time.monotonic() - began < 3
    assert read_record(home, "s3") == before


def test_env_can_be_sourced(home: Path) -> None:
    output, _ = command("env", "--root", str(home)).communicate(timeout=60)
    script = 'set -a; eval "$LINES_"; echo "$AWS_ENDPOINT_URL_S3 $AWS_ACCESS_KEY_ID $MLFLOW_DISABLE_TELEMETRY"'
    environment = {"PATH": os.environ["PATH"], "LINES_": output}
    said = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True).stdout
    assert said == f"{status(home)['s3']} test:tester true\n"


def test_a_killed_process_is_noticed_and_mended(home: Path, tmp_path: Path) -> None:
    record = read_record(home, "s3")
    assert record is not None
    os.kill(record.pids["object"], signal.SIGKILL)
    assert until(lambda: status(home)["s3"] == "died")
    environment = start(home, ("s3",))
    assert _port(environment) == record.port
    assert _kept(environment, tmp_path) == "before the stop"


def test_a_lost_bucket_is_made_again(home: Path, tmp_path: Path) -> None:
    environment = start(home, ("s3",))
    store = store_of(environment)
    store._client.delete_bucket(Bucket="qartsr-mlflow")
    start(home, ("s3",))
    store.demand("qartsr-mlflow")


def test_stop_leaves_the_data_and_no_process(home: Path) -> None:
    port = _port(start(home, ("s3",)))
    assert stop(home) == ("s3",)
    assert processes(home) == []
    assert status(home)["s3"] == "stopped"
    assert stop(home) == ()
    with listening(port):  # nobody holds it any more
        pass


def test_a_taken_port_moves_and_the_data_comes_along(home: Path, tmp_path: Path) -> None:
    record = read_record(home, "s3")
    assert record is not None
    with listening(record.port + 2):
        environment = start(home, ("s3",))
    assert not set(range(_port(environment), _port(environment) + 4)) & {record.port + 2}
    assert f"AWS_ENDPOINT_URL_S3={environment['AWS_ENDPOINT_URL_S3']}\n" in (home / "env").read_text()
    assert _kept(environment, tmp_path) == "before the stop"


def test_two_starts_at_a_time_do_not_share_a_port(home: Path, other: Path, tmp_path: Path) -> None:
    """With SO_REUSEPORT, as Swift sets it, two stores could listen on one port and mix their data."""
    stop(home)
    with ThreadPoolExecutor(2) as pool:
        mine, theirs = pool.map(lambda root: start(root, ("s3",)), (home, other))
    assert abs(_port(mine) - _port(theirs)) >= 4
    _keep(theirs, tmp_path, "of the other")
    assert _kept(mine, tmp_path) == "before the stop"
    stop(home)


class _Yes(BaseHTTPRequestHandler):
    """A stranger that says yes to everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_stranger_on_its_port_is_not_taken_for_the_service(other: Path) -> None:
    """It comes between the choice of the port and the start of the server, and it answers."""
    strangers: list[HTTPServer] = []

    def sneak_in() -> None:
        until(lambda: read_record(other, "s3") is not None)
        record = read_record(other, "s3")
        assert record is not None
        with HTTPServer(("127.0.0.1", record.port), _Yes) as stranger:
            strangers.append(stranger)
            stranger.serve_forever(0.05)

    thread = threading.Thread(target=sneak_in)
    thread.start()
    with pytest.raises(QartsrError) as refusal:
        start(other, ("s3",))
    strangers[0].shutdown()
    thread.join()
    assert str(refusal.value).startswith(f"{other}/logs/proxy.log: the s3 service ended while starting; read it")
    (said,) = refusal.value.__notes__
    assert said.startswith("its last lines:\n")
    assert "Could not bind to 127.0.0.1" in said and len(said.splitlines()) <= 14
    assert processes(other) == []
    assert status(other)["s3"] == "stopped"


@pytest.mark.parametrize(("sent", "left"), [(signal.SIGINT, ()), (signal.SIGKILL, ("s3",))])
def test_an_interrupted_start_leaves_nothing_that_stop_does_not_find(
    other: Path, sent: signal.Signals, left: tuple[str, ...]
) -> None:
    with command("start", "s3", "--root", str(other)) as starting:
        assert until(lambda: len(processes(other)) >= 2)
        starting.send_signal(sent)
        _, errors = starting.communicate(timeout=30)
    assert "Traceback" not in errors
    assert starting.returncode == (130 if sent is signal.SIGINT else -sent)
    assert stop(other) == left
    assert processes(other) == []
