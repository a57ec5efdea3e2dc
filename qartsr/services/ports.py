"""Free ports of the loopback interface."""

from __future__ import annotations

import errno
import socket

from qartsr.errors import QartsrError

HOST = "127.0.0.1"


def free_ports(first: int, count: int = 1, tries: int = 200) -> int:
    """The lowest port from ``first`` on where ``count`` ports in a row are free.

    Raises QartsrError when none of ``tries`` places is.
    """
    for port in range(first, min(first + tries, 65536 - count)):
        if all(is_free(port + offset) for offset in range(count)):
            return port
    raise QartsrError(f"no free port in {tries} from here", f"{HOST}:{first}", "stop what listens there")


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
