"""Free ports of the loopback interface, and keeping two starts at the same time from choosing the same ones.

A port looks free until its server listens, seconds after it was chosen. That is no mere nuisance: Swift listens with
SO_REUSEPORT, so two stores of one user can listen on one port, and each then gets half of the other's requests.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from contextlib import ExitStack

from qartsr.errors import QartsrError

HOST = "127.0.0.1"


class Ports:
    """Ports for servers about to start. Nobody else is given them before ``close``, when the servers listen.

    The mark on a port is an abstract socket of Linux: it lies in the network namespace of the port and vanishes with
    the process that holds it. Where there are none, ports are not marked.
    """

    def __init__(self) -> None:
        self._marks = ExitStack()

    def close(self) -> None:
        """Take the marks away."""
        self._marks.close()

    def take(self, candidates: Iterable[int], count: int) -> int:
        """The first of ``candidates`` from which on ``count`` ports in a row are free.

        Raises QartsrError when none is.
        """
        tried = list(candidates)
        for port in tried:
            if self._mark(range(port, port + count)):
                return port
        raise QartsrError(
            f"no {count} free ports in a row from there on", f"{HOST}:{min(tried)}", "stop what listens there"
        )

    def _mark(self, ports: Iterable[int]) -> bool:
        with ExitStack() as marks:
            for port in ports:
                mark = marks.enter_context(socket.socket(socket.AF_UNIX))
                if not _bind(mark, f"\0qartsr-port-{port}") or not is_free(port):
                    return False
            self._marks.push(marks.pop_all())
        return True


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection in TIME_WAIT does not matter
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _bind(mark: socket.socket, name: str) -> bool:
    """Whether ``name`` is not taken by another; so too where there are no such names."""
    try:
        mark.bind(name)
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True
