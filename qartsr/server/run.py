"""From a model's source to a process that listens, and its orderly end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from qartsr.errors import QartsrError
from qartsr.server.app import application
from qartsr.server.limits import Limits
from qartsr.server.watch import LOG, Watch, log_to_stderr
from qartsr.server.worker import Load, Worker


class _Server(uvicorn.Server):
    """A signal ends readiness, lets requests that are inside be answered, and is no failure of the process."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The second SIGINT waits for nobody."""
        self._stop()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def serve(load: Load, source: str, host: str, port: int, limits: Limits, token: str = "", form: str = "text") -> None:
    """Listen until SIGTERM or SIGINT. The model is loaded meanwhile; until then ``/readyz`` says 503.

    ``form``: ``text`` or ``json``, of the log. Raises QartsrError when the address is taken or the model cannot be
    loaded.
    """
    log_to_stderr(form)
    watch = Watch()
    listening = _listening(host, port)
    worker = Worker(load, source, watch)
    app = application(worker, limits, watch, token)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=int(limits.seconds), server_header=False
    )
    server = _Server(config, app.service.stop)  # type: ignore[attr-defined]
    worker.loading.add_done_callback(lambda done: setattr(server, "should_exit", done.exception() is not None))
    address = f"http://{host}:{listening.getsockname()[1]}"
    LOG.info("listening", extra={"facts": {"address": address, "token": bool(token)}})
    server.run([listening])
    if worker.loading.done() and not worker.loading.cancelled() and (error := worker.loading.exception()):
        raise error


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or error
        raise QartsrError(f"cannot be listened on ({reason})", f"{host}:{port}", "choose another --port") from error
    return found
