"""A run on the MLflow server, and the absence of one. Neither ever raises, and neither makes training wait."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from qartsr.remote import Mlflow
from qartsr.tracking.artifacts import Shelf

_SECONDS = 3.0
"""Metrics wait at most this long before they are sent."""
_BATCH = 1000
"""Metrics in one request; MLflow takes no more."""
_BUFFER = 200_000
"""Metrics kept at most while the server is away."""
_PATIENCE = 3
"""After so many failures in a row nothing more is tried."""

_log = logging.getLogger("qartsr.tracking")


class Tracker(Protocol):
    """What a stage may tell."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Numbers at a step."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file, or a folder with all its files, kept under ``folder``."""

    def tags(self, values: Mapping[str, object]) -> None:
        """Words about the run."""


class NullRun:
    """Where no server is in use."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Nothing."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Nothing."""

    def tags(self, values: Mapping[str, object]) -> None:
        """Nothing."""

    def close(self, status: str) -> None:
        """Nothing."""


class Run:
    """A run. Metrics are buffered and sent by a thread; tags and artifacts are sent at once.

    The first failure is told in one line, later ones not at all; metrics of a failed request are sent again.
    """

    def __init__(self, server: Mlflow, run_id: str, shelf: Shelf) -> None:
        self.run_id = run_id
        self._server, self._shelf = server, shelf
        self._buffer, self._lock = list[dict[str, Any]](), threading.Lock()
        self._failures, self._warned, self._closing = 0, False, threading.Event()
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
        self._attempt(lambda: self._shelf.put(path, folder))

    def tags(self, values: Mapping[str, object]) -> None:
        """Words about the run."""
        pairs = [{"key": key, "value": str(value)} for key, value in values.items()]
        self._attempt(lambda: self._batch("tags", pairs))

    def params(self, values: Mapping[str, str]) -> None:
        """Parameters, a hundred to a request."""
        pairs = [{"key": key, "value": value} for key, value in values.items()]
        for first in range(0, len(pairs), 100):
            self._attempt(partial(self._batch, "params", pairs[first : first + 100]))

    def close(self, status: str) -> None:
        """Send what is left and end the run: FINISHED, FAILED or KILLED."""
        self._closing.set()
        self._sender.join()
        self._attempt(self._send)
        body = {"run_id": self.run_id, "status": status, "end_time": int(time.time() * 1000)}
        self._attempt(lambda: self._server.post("runs/update", body))

    def _send_now_and_then(self) -> None:
        while not self._closing.wait(_SECONDS):
            self._attempt(self._send)

    def _send(self) -> None:
        while part := self._buffer[:_BATCH]:
            self._batch("metrics", part)
            with self._lock:  # only now: what failed is sent again
                del self._buffer[: len(part)]

    def _batch(self, kind: str, entries: list[dict[str, Any]]) -> None:
        self._server.post("runs/log-batch", {"run_id": self.run_id, kind: entries})

    def _attempt(self, action: Callable[[], object]) -> None:
        if self._failures >= _PATIENCE:
            return
        try:
            action()
        except Exception as error:  # whatever it is, it is no reason to lose hours of training
            self._failures += 1
            if not self._warned:
                self._warned = True
                _log.warning("MLflow is not told everything: %s", error)
        else:
            self._failures = 0


def _number(value: float) -> float | str:
    """JSON knows no NaN or infinity; MLflow reads their names."""
    value = float(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
