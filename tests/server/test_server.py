"""``qartsr serve``: what it answers, what it refuses, and what it tells of itself."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import uvicorn
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from qartsr import serving
from qartsr.cli import serve as door
from qartsr.errors import QartsrError
from qartsr.files import sha256_file
from qartsr.images import Picture
from qartsr.packing import write_package
from qartsr.server import Limits
from qartsr.server.app import application
from qartsr.server.limits import MAX_BYTES, MAX_PIXELS, MAX_SECONDS, MAX_WAITING
from qartsr.server.run import serve
from qartsr.server.watch import JsonLines, Watch
from qartsr.server.worker import Worker
from tests.packing.tiny import quantize, recipe, tiny_model
from tests.pipelines.alive import until


def photo(width: int, height: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class _Pipe:
    """In the place of a pipeline: a picture four times as wide and high, as soon as it may."""

    engine = "none"

    def __init__(self) -> None:
        self.may, self.calls = threading.Event(), 0
        self.may.set()

    def digest(self) -> str:
        return "5ha"

    def __call__(self, image: Picture) -> Picture:
        self.calls += 1
        assert self.may.wait(60)
        return Picture.of(image.resize((image.width * 4, image.height * 4)), {})


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: Any

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["message"])


class Running:
    """A server in a thread."""

    def __init__(self, limits: Limits, token: str = "", may_load: bool = True) -> None:
        self.pipe, self.load = _Pipe(), threading.Event()
        if may_load:
            self.load.set()
        watch = Watch()
        self.worker = Worker(self._loaded, "a model", watch)  # type: ignore[arg-type]
        config = uvicorn.Config(application(self.worker, limits, watch, token), port=0, log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.address = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        if may_load:
            self.worker.loading.result(60)

    def _loaded(self) -> _Pipe:
        assert self.load.wait(60)
        return self.pipe

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> Answer:
        request = urllib.request.Request(self.address + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, answer.read(), answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read(), error.headers)

    def figures(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.ask("/metrics").body.decode())
        return {_name(sample): sample.value for family in families for sample in family.samples}

    def close(self) -> None:
        self.pipe.may.set()
        self.load.set()
        self._server.should_exit = True
        self._thread.join(30)


def _name(sample: Any) -> str:
    return sample.name + "".join(f"|{value}" for _, value in sorted(sample.labels.items()))


@pytest.fixture()
def run() -> Iterator[Callable[..., Running]]:
    begun: list[Running] = []

    def make(limits: Limits = Limits(), **options: Any) -> Running:  # noqa: B008
        begun.append(Running(limits, **options))
        return begun[-1]

    yield make
    for each in begun:
        each.close()


def test_pictures_in_pictures_out_and_all_of_it_counted(
    run: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    server = run()
    caplog.set_level(logging.INFO, "qartsr.server")
    made = server.ask("/upscale", photo(5, 3), **{"X-Request-ID": "mine-1"})
    assert (made.status, made.headers["content-type"], made.headers["x-request-id"]) == (200, "image/png", "mine-1")
    with Image.open(BytesIO(made.body)) as image:
        assert image.size == (20, 12)
    text = base64.b64encode(photo(2, 2)).decode()
    split = {"dataframe_split": {"columns": ["image"], "data": [[text], [text]]}}
    for body, rows in ((split, 2), ({"dataframe_records": [{"image": text}]}, 1)):
        answer = server.ask("/invocations", json.dumps(body).encode())
        predictions = json.loads(answer.body)["predictions"]
        assert [Image.open(BytesIO(base64.b64decode(row["image"]))).size for row in predictions] == [(8, 8)] * rows
    assert server.ask("/nowhere").status == 404 and server.ask("/upscale").status == 405
    figures = server.figures()
    assert figures["qartsr_requests_total|/upscale|200"] == 1 and figures["qartsr_requests_total|other|404"] == 1
    assert figures["qartsr_requests_total|/invocations|200"] == 2 and figures["qartsr_images_total|done"] == 4
    assert figures["qartsr_pixels_total"] == 15 + 3 * 4 and figures["qartsr_upscale_seconds_count"] == 4
    assert figures["qartsr_ready"] == figures["qartsr_model_info|none|5ha|a model"] == 1
    assert figures["process_resident_memory_bytes"] > 1e7
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records if record.message == "request"]
    assert lines[0] | {"seconds": 0, "time": "", "client": ""} == {
        "time": "", "level": "info", "logger": "qartsr.server", "message": "request", "method": "POST",
        "path": "/upscale", "status": 200, "client": "", "seconds": 0, "request": "mine-1",
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[0]["time"])


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/upscale", b"no image", "cannot be read as PNG, JPEG"),
        ("/upscale", b"", "the image: is empty"),
        ("/invocations", b"[" * 100_000, "is not what MLflow sends; send"),
        ("/invocations", b'{"dataframe_split": {"columns": ["other"], "data": []}}', "is not what MLflow sends"),
        ("/invocations", b'{"dataframe_records": [{"image": "!"}]}', "row 0: is not base64"),
        (
            "/invocations",
            b'{"dataframe_records": [{"image": "data:image/png;base64,aGk="}]}',
            "the image: cannot be read as",
        ),
    ],
)
def test_what_is_no_image_is_400(run: Callable[..., Running], path: str, body: bytes, sentence: str) -> None:
    answer = run().ask(path, body)
    assert answer.status == 400 and sentence in answer.message


def test_too_many_pixels_or_bytes_are_413(run: Callable[..., Running]) -> None:
    server = run(Limits(pixels=100, bytes=1000))
    assert server.ask("/upscale", photo(10, 10)).status == 200
    assert "pixels, more than" in (large := server.ask("/upscale", photo(10, 11))).message
    assert large.status == 413
    told = server.ask("/upscale", bytes(1001))
    assert (told.status, told.message) == (413, "the body has 1001 bytes, more than the 1000 allowed")
    untold = urllib.request.Request(server.address + "/upscale", (bytes(100) for _ in range(11)), method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(untold, timeout=30)
    with refused.value as answer:
        assert answer.code == 413 and "more than the 1000 bytes allowed" in json.load(answer)["message"]
    text = base64.b64encode(photo(8, 8)).decode()
    both = {"dataframe_records": [{"image": text}] * 2}
    assert server.ask("/invocations", json.dumps(both).encode()).status == 413


def test_too_many_that_wait_are_429_and_too_long_is_504(run: Callable[..., Running]) -> None:
    server = run(Limits(waiting=1, seconds=3))
    server.pipe.may.clear()
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(server.ask, "/upscale", photo(4, 4)) for _ in range(2))
        while server.figures()["qartsr_requests_inside"] < 2:
            time.sleep(0.01)
        third = server.ask("/upscale", photo(4, 4))
        assert (third.status, third.headers["retry-after"]) == (429, "5")
        assert third.message == "2 requests wait already; try again later"
        assert server.ask("/healthz").status == 200, "alive all the while"
        assert first.result().status == second.result().status == 504
    assert server.figures()["qartsr_requests_inside"] == 0
    server.pipe.may.set()
    assert server.ask("/upscale", photo(4, 4)).status == 200 and server.pipe.calls == 2, "the second was never begun"


def test_half_a_body_holds_no_place(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither of somebody slow, nor of somebody who goes."""
    server = run(Limits(waiting=0))
    head = b"POST /upscale HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n1"
    place = server.address.removeprefix("http://").split(":")
    with socket.create_connection((place[0], int(place[1]))) as gone:
        gone.sendall(head)
        assert until(lambda: server.figures()["qartsr_requests_inside"] > 0, 60)
    assert until(lambda: "qartsr_requests_total|/upscale|499" in server.figures(), 60), "it counts as gone"
    monkeypatch.setattr("qartsr.server.app._PATIENCE", 0.1)
    with socket.create_connection((place[0], int(place[1]))) as slow:
        slow.sendall(head)
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
    with socket.create_connection((place[0], int(place[1]))) as late:  # much at first is no credit for silence
        late.sendall(head.replace(b"100", b"1000000") + bytes(300_000))
        answer = late.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"connection: close" in answer.lower()
    assert server.figures()["qartsr_requests_inside"] == 0
    assert not [record for record in caplog.records if record.exc_info]


def test_ready_is_not_alive(run: Callable[..., Running]) -> None:
    server = run(may_load=False)
    assert server.ask("/healthz").status == 200
    assert (server.ask("/readyz").status, server.ask("/upscale", b"x").status) == (503, 503)
    assert server.figures()["qartsr_ready"] == 0
    server.load.set()
    server.worker.loading.result(60)
    assert server.ask("/readyz").status == 200


def test_a_token_is_asked_for_but_not_of_probes(run: Callable[..., Running]) -> None:
    server = run(token="secret")
    for path in ("/upscale", "/metrics", "/invocations", "/nowhere"):
        for header in ({}, {"Authorization": "Bearer other"}, {"Authorization": "secret"}):
            answer = server.ask(path, b"", **header)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert server.ask("/healthz").status == server.ask("/readyz").status == 200
    assert server.ask("/upscale", photo(2, 2), Authorization="Bearer secret").status == 200


def test_the_dashboard_asks_for_what_is_exported(run: Callable[..., Running], root: Path) -> None:
    server = run()
    server.ask("/upscale", photo(2, 2))
    exported = {name.partition("|")[0] for name in server.figures()}
    dashboard = json.loads((root / "deploy" / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"\b(?:qartsr|process)_[a-z_]+", query)}
    assert len(queries) >= 8 and asked and asked <= exported
    own = {
        name for name in exported if name.startswith("qartsr_") and not name.endswith(("_created", "_count", "_sum"))
    }
    assert own <= asked, "a metric that no panel shows"


def test_one_pair_of_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (MAX_PIXELS, MAX_WAITING) == (serving.MAX_PIXELS, serving.MAX_WAITING)
    assert (door._PIXELS[1], door._WAITING[1]) == (MAX_PIXELS, MAX_WAITING)
    assert (door._MEGABYTES << 20, door._SECONDS) == (MAX_BYTES, MAX_SECONDS)


def test_a_model_that_cannot_be_loaded_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> Any:
        raise QartsrError("is no model", "a model", "give another")

    monkeypatch.setattr("qartsr.server.run.log_to_stderr", lambda form: None)
    with pytest.raises(QartsrError, match="a model: is no model; give another"):
        serve(load, "a model", "127.0.0.1", 0, Limits())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(QartsrError, match=r"Address already in use.*choose another --port"):
            serve(load, "a model", *taken.getsockname(), Limits())


def test_the_command_serves_a_package_and_ends_when_told(tmp_path: Path) -> None:
    model, file = tiny_model(), tmp_path / "model.safetensors"
    write_package(file, model, quantize(model, "w4a4", recipe()), {"profile": "test"})
    words = ["--port", "0", "--log", "json", "--device", "cpu", "--engine", "simulated"]
    command = [sys.executable, "-m", "qartsr.cli", "serve", str(file), *words]
    environment = {**os.environ, "QARTSR_TOKEN": "secret"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said: dict[str, str] = {}
        while "sha256" not in said:
            said |= json.loads(process.stderr.readline())
        assert said["sha256"] == sha256_file(file)
        request = urllib.request.Request(said["address"] + "/upscale", photo(7, 5), {"Authorization": "Bearer secret"})
        with urllib.request.urlopen(request, timeout=60) as answer, Image.open(answer) as image:
            assert image.size == (28, 20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
