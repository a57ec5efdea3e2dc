"""What a server tells of itself: Prometheus metrics and a line of log for each request."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from qartsr.errors import printable

LOG = logging.getLogger("qartsr.server")
CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Watch:
    """Metrics of one server; ``deploy/grafana.json`` shows them."""

    def __init__(self) -> None:
        self._registry = every = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=every)
        self.requests = Counter("qartsr_requests", "Requests answered", ("path", "status"), registry=every)
        took = "Seconds from a request's first byte to its answer's last"
        self.request_seconds = Histogram("qartsr_request_seconds", took, ("path",), buckets=_SECONDS, registry=every)
        self.queue_seconds = Histogram(
            "qartsr_queue_seconds", "Seconds a request waited for its turn", buckets=_SECONDS, registry=every
        )
        self.upscale_seconds = Histogram(
            "qartsr_upscale_seconds", "Seconds of one image: decoded, upscaled, encoded", buckets=_SECONDS,
            registry=every,
        )  # fmt: skip
        self.pixels = Counter("qartsr_pixels", "Pixels of images that were upscaled, before upscaling", registry=every)
        self.images = Counter("qartsr_images", "Images by what became of them", ("outcome",), registry=every)
        self.inside = Gauge("qartsr_requests_inside", "Requests that wait or are worked on", registry=every)
        self.ready = Gauge("qartsr_ready", "1 when the model is loaded and requests are taken", registry=every)
        self._model = Gauge(
            "qartsr_model_info", "The model that is served", ("source", "sha256", "engine"), registry=every
        )
        for outcome in ("done", "refused", "failed"):
            self.images.labels(outcome)

    def model(self, source: str, sha256: str, engine: str) -> None:
        """Which model is served."""
        self._model.labels(source, sha256, engine).set(1)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


class JsonLines(logging.Formatter):
    """One JSON object for each record: time, level, logger, message and what came in ``extra={"facts": …}``."""

    def format(self, record: logging.LogRecord) -> str:
        """As one line."""
        said: dict[str, Any] = {"time": _utc(record.created), "level": record.levelname.lower()}
        said |= {"logger": record.name, "message": record.getMessage(), **_facts(record)}
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False, default=str)


class PlainLines(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, message, then ``key=value``."""
        words = [self.formatTime(record, "%H:%M:%S"), record.levelname, record.getMessage()]
        words += [f"{key}={value}" for key, value in _facts(record).items()]
        lines = printable(" ".join(words))
        return f"{lines}\n{self.formatException(record.exc_info)}" if record.exc_info else lines


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _facts(record: logging.LogRecord) -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(record, "facts", {})
    return found


def log_to_stderr(form: str) -> None:
    """Everything that qartsr and uvicorn say, as ``json`` or ``text``."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else PlainLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("qartsr", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
