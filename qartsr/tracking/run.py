"""A run on the MLflow server, and the absence of one. Neither ever raises, and neither makes training wait."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from qartsr.files import sha256_file, sha256_tree
from qartsr.remote import Mlflow, RefusedError
from qartsr.tracking.artifacts import ArtifactStore
from qartsr.tracking.machine import Machine

if TYPE_CHECKING:
    from qartsr.tracking.artifacts import Pixels

_FAILURES = 3
"""After so many in a row, whoever would have to wait tries no more."""
_LONGEST = 64.0
"""Longest pause between two attempts in the background, in seconds."""

_log = logging.getLogger("qartsr.tracking")


class RetryWindow:
    """Attempts at one server. Nothing it does raises; the first failure is told in one line, later ones are not."""

    def __init__(self) -> None:
        self._failures, self._warned = 0, False

    def attempt(self, action: Callable[[], object]) -> bool:
        """Do it, unless the server has failed three times in a row; whether it answered."""
        return self._failures < _FAILURES and self.insist(action)

    def insist(self, action: Callable[[], object]) -> bool:
        """Do it in any case; whether the server answered, if only to refuse. That makes up for all failures before."""
        try:
            action()
        except Exception as error:  # whatever it is, it is no reason to lose hours of training
            self._failures = 0 if isinstance(error, RefusedError) else self._failures + 1
            if not self._warned:
                self._warned = True
                _log.warning("MLflow is not told everything: %s", error)
        else:
            self._failures = 0
        return not self._failures

    def pause(self, seconds: float) -> float:
        """``seconds``, doubled for every failure in a row."""
        return min(seconds * 2.0 ** min(self._failures, 10), max(seconds, _LONGEST))


_SECONDS = 3.0
"""Metrics wait at most this long before they are sent."""
_BATCH = 1000
"""Metrics in one request; MLflow takes no more."""
_BUFFER = 200_000
"""Metrics kept at most while the server is away."""


class Tracker(Protocol):
    """What a stage may tell."""

    run_id: str
    """Empty where no server is in use."""
    page: str
    """Address of the run's page; empty likewise."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Numbers at a step."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file, or a folder with all its files, kept under ``folder``."""

    def tags(self, values: Mapping[str, object]) -> None:
        """Words about the run."""

    def data(self, name: str, path: Path, context: str) -> None:
        """A data set that the run reads; ``context``: ``training`` or ``testing``."""

    def pictures(self, images: Pixels, step: int) -> None:
        """A row of pictures (B, H, W, 3) at a step, 8 bits."""


class NullRun:
    """Where no server is in use."""

    run_id = ""
    page = ""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Nothing."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Nothing."""

    def tags(self, values: Mapping[str, object]) -> None:
        """Nothing."""

    def data(self, name: str, path: Path, context: str) -> None:
        """Nothing."""

    def pictures(self, images: Pixels, step: int) -> None:
        """Nothing."""

    def close(self, status: str) -> None:
        """Nothing."""


NO_RUN: AbstractContextManager[Tracker] = nullcontext(NullRun())
"""For processes of which another one tells."""


class Run:
    """A run. Metrics are buffered and sent by a thread; tags and artifacts are sent at once.

    While the server is away the thread keeps trying, ever more rarely; metrics and tags wait for it. Artifacts, data
    sets and parameters, which the caller waits for, are given up after three failures until the server is back.
    """

    def __init__(self, server: Mlflow, run_id: str, shelf: ArtifactStore, experiment: str) -> None:
        self.run_id, self.page = run_id, f"{server.address}/#/experiments/{experiment}/runs/{run_id}"
        self._server, self._shelf = server, shelf
        self._buffer, self._lock = list[dict[str, Any]](), threading.Lock()
        self._tags, self._tagging = dict[str, str](), threading.Lock()  # the second keeps a tag's values in order
        self._mlflow, self._store, self._closing = RetryWindow(), RetryWindow(), threading.Event()
        self._machine = Machine()
        self._sender = threading.Thread(target=self._send_now_and_then, name="qartsr-tracking", daemon=True)
        self._sender.start()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Numbers at a step; returns at once."""
        now = int(time.time() * 1000)
        rows = [{"key": key, "value": _number(value), "timestamp": now, "step": step} for key, value in values.items()]
        with self._lock:
            self._buffer += rows if len(self._buffer) < _BUFFER else []

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file, or a folder with all its files, kept under ``folder``."""
        self._store.attempt(lambda: self._shelf.put(path, folder))

    def tags(self, values: Mapping[str, object]) -> None:
        """Words about the run, sent at once or, where the server does not answer, with the metrics."""
        with self._lock:
            self._tags |= {key: str(value) for key, value in values.items()}
        self._mlflow.attempt(self._offer_tags)

    def data(self, name: str, path: Path, context: str) -> None:
        """A data set that the run reads, by the start of the SHA-256 of its manifest, or of all its files."""
        self._mlflow.attempt(lambda: self._server.post("runs/log-inputs", self._input(name, path, context)))

    def pictures(self, images: Pixels, step: int) -> None:
        """A row of pictures (B, H, W, 3), for which MLflow's page of the run has a slider over steps."""
        self._store.attempt(lambda: self._shelf.put_row(images, step))
        self.tags({"mlflow.loggedImages": True})

    def _input(self, name: str, path: Path, context: str) -> dict[str, Any]:
        manifest = path / "manifest.json"
        digest = sha256_file(manifest) if manifest.is_file() else sha256_tree(path)
        source = json.dumps({"uri": str(path)})
        said = {"name": name, "digest": digest[:16], "source_type": "local", "source": source}
        tags = [{"key": "mlflow.data.context", "value": context}]
        return {"run_id": self.run_id, "datasets": [{"tags": tags, "dataset": said}]}

    def params(self, values: Mapping[str, str]) -> None:
        """Parameters, a hundred to a request."""
        pairs = [{"key": key, "value": value} for key, value in values.items()]
        for first in range(0, len(pairs), 100):
            self._mlflow.attempt(partial(self._batch, "params", pairs[first : first + 100]))

    def close(self, status: str) -> None:
        """Send what is left and end the run: FINISHED, FAILED or KILLED."""
        self._closing.set()
        self._sender.join()
        self.metrics(self._machine.look(), self._machine.looks)
        body = {"run_id": self.run_id, "status": status, "end_time": int(time.time() * 1000)}
        if self._send():
            self._mlflow.insist(lambda: self._server.post("runs/update", body))

    def _send_now_and_then(self) -> None:
        while not self._closing.wait(self._mlflow.pause(_SECONDS)):
            if self._machine.due():
                self.metrics(self._machine.look(), self._machine.looks)
            self._send()

    def _send(self) -> bool:
        """Send the tags and metrics that wait; whether the server answered."""
        if self._tags and not self._mlflow.insist(self._offer_tags):
            return False
        while part := self._buffer[:_BATCH]:
            if not self._mlflow.insist(partial(self._offer, part)):
                return False
        return True

    def _offer(self, part: list[dict[str, Any]]) -> None:
        """Send these metrics and forget them, unless the server does not answer."""
        try:
            self._batch("metrics", part)
        except RefusedError:
            self._forget(part)
            raise
        self._forget(part)

    def _offer_tags(self) -> None:
        """Send the tags that wait and forget them, unless the server does not answer."""
        with self._tagging:
            with self._lock:
                part = dict(self._tags)
            try:
                if part:
                    self._batch("tags", [{"key": key, "value": value} for key, value in part.items()])
            except RefusedError:
                self._forget_tags(part)
                raise
            self._forget_tags(part)

    def _forget_tags(self, part: dict[str, str]) -> None:
        with self._lock:
            self._tags = {key: value for key, value in self._tags.items() if part.get(key) != value}

    def _forget(self, part: list[dict[str, Any]]) -> None:
        with self._lock:
            del self._buffer[: len(part)]

    def _batch(self, kind: str, entries: list[dict[str, Any]]) -> None:
        self._server.post("runs/log-batch", {"run_id": self.run_id, kind: entries})


def _number(value: float) -> float | str:
    """JSON knows no NaN or infinity; MLflow reads their names."""
    value = float(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
