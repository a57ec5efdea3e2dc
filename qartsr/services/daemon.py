"""Processes that outlive the one who starts them, and are found again by a token only they carry.

A daemon is started in a session of its own, with default signal handling (a shell's ``&`` hands down an ignored SIGINT)
and a random token in its environment. Whatever it starts inherits the token, so stopping reaches every descendant, and
a recycled process id, whose owner does not have the token, is never touched.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

_TOKEN = "QARTSR_SERVICE_TOKEN"
_DEFAULT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)


def spawn(command: Sequence[str], environment: Mapping[str, str], token: str, log: Path) -> int:
    """Start ``command`` detached, its output in ``log`` (the log of the start before is kept beside it). The pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        os.replace(log, log.with_suffix(".before.log"))
    pid = os.posix_spawn(
        command[0],
        list(command),
        {**environment, _TOKEN: token},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=_DEFAULT_SIGNALS,
    )
    deadline = time.monotonic() + 5.0  # the kernel lets us go on a moment before the new environment can be read
    while not alive(pid, token) and psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.005)
    return pid


def alive(pid: int, token: str) -> bool:
    """Whether ``pid`` runs and was started with ``token``."""
    _reap(pid)
    try:
        return _carries(psutil.Process(pid), token)
    except psutil.Error:
        return False


def end(pids: Iterable[int], token: str, grace: float = 8.0) -> bool:
    """End every process started with ``token``: SIGTERM, after ``grace`` seconds SIGKILL.

    Returns when all are gone, with whether there was any. ``pids`` are those that may be our own children.
    """
    pids, any_found = tuple(pids), False
    deadline, send = time.monotonic() + grace, signal.SIGTERM
    while members := _members(token):
        any_found = True
        for process in members:
            with suppress(psutil.Error):
                process.send_signal(send)
        while time.monotonic() < deadline and any(map(_running, members)):
            time.sleep(0.05)
            for pid in pids:
                _reap(pid)
        send, deadline = signal.SIGKILL, time.monotonic() + 1.0
    for pid in pids:
        _reap(pid)
    return any_found


def listening(token: str) -> set[int]:
    """The TCP ports that processes started with ``token`` listen on."""
    ports: set[int] = set()
    for process in _members(token):
        with suppress(psutil.Error):
            connections = process.net_connections("tcp")
            ports |= {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    return ports


def _members(token: str) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _carries(process, token)]


def _carries(process: psutil.Process, token: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_TOKEN) == token
    except (psutil.Error, OSError):  # gone, or of another user
        return False


def _running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _reap(pid: int) -> None:
    """Take the exit status of a child of this very process, so that it does not stay a zombie."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
