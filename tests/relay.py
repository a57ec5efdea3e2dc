"""A TCP relay in front of a real server: the test can cut the line, silence it, or change what comes back over it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from urllib.parse import urlsplit

HOST = "127.0.0.1"


class Relay:
    """Listens on a port of its own. Use it as a context, so that nothing stays open."""

    def __init__(self, target: str, swap: tuple[bytes, bytes] = (b"", b""), limit: int | None = None) -> None:
        """``target``: address of the server.

        ``swap``: bytes in its answers, and the equally many that replace them. ``limit``: the line is cut after so many
        bytes of answers.
        """
        self._target = (HOST, urlsplit(target).port)
        self._swap, self._left = swap, limit
        self._listener, self._port = socket.socket(), 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.mend()

    @property
    def address(self) -> str:
        """Where clients go."""
        return f"http://{HOST}:{self._port}"

    def mend(self) -> None:
        """Pass everything on (again)."""
        self.cut()
        self._listen()
        self._run(self._accept, self._listener)

    def mute(self) -> None:
        """Take connections, and never say a word."""
        self.cut()
        self._listen()

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5)
        for each in self._sockets:
            each.close()
        self._sockets, self._threads = [], []

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cut()

    def _listen(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((HOST, self._port))
        self._listener.listen(64)
        self._port = self._listener.getsockname()[1]

    def _run(self, action: object, *arguments: object) -> None:
        thread = threading.Thread(target=action, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client = listener.accept()[0]
                self._sockets.append(client)
                server = socket.create_connection(self._target)
                self._sockets.append(server)
                self._run(self._pass_on, client, server, False)
                self._run(self._pass_on, server, client, True)

    def _pass_on(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data.replace(*self._swap) if answers and self._swap[0] else data)
                if answers and self._spent(len(data)):
                    break
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _spent(self, size: int) -> bool:
        if self._left is None:
            return False
        self._left -= size
        if self._left <= 0:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
        return self._left <= 0


@contextmanager
def closed_port() -> Iterator[str]:
    """An address where nobody listens, and nobody else will while the test runs."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        yield f"http://{HOST}:{held.getsockname()[1]}"


class Trickle:
    """Answers every client with ``head`` at once, and then a byte now and then, without end."""

    def __init__(self, head: bytes, seconds: float = 0.1) -> None:
        self._head, self._seconds, self._over = head, seconds, threading.Event()
        self._listener = socket.create_server((HOST, 0))
        self.address = f"http://{HOST}:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Trickle:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                guest = self._listener.accept()[0]
                threading.Thread(target=self._drip, args=(guest,), daemon=True).start()

    def _drip(self, guest: socket.socket) -> None:
        with guest, suppress(OSError):
            guest.recv(1 << 16)
            guest.sendall(self._head)
            while not self._over.wait(self._seconds):
                guest.sendall(b"x")
