"""Processes that outlive their parent, and how they end."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from qartsr.services.daemon import alive, end, listening, spawn
from tests.pipelines.alive import alive as running
from tests.pipelines.alive import until

# A server with a helper that left its session, and that has to be killed.
FAMILY = """
import os, signal, socket, subprocess, sys
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, __file__, "helper"], start_new_session=True)
    server = socket.create_server(("127.0.0.1", 0))
else:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
signal.pause()
"""


def _spawn(folder: Path, code: str, token: str) -> int:
    script = folder / "script.py"
    script.write_text(code)
    return spawn([sys.executable, str(script)], os.environ, token, folder / "logs" / "script.log")


def _log(folder: Path) -> list[str]:
    log = folder / "logs" / "script.log"
    return log.read_text().split() if log.exists() else []


def test_ending_reaches_descendants_that_resist(tmp_path: Path) -> None:
    pid = _spawn(tmp_path, FAMILY, "family")
    assert until(lambda: len(_log(tmp_path)) == 2)
    family = {int(word) for word in _log(tmp_path)}
    assert pid in family and len(listening("family")) == 1
    began = time.monotonic()
    assert end([pid], "family", grace=0.3)
    assert time.monotonic() - began < 5
    assert not any(running(each) for each in family)
    assert not end([pid], "family"), "there is nothing left to end"


def test_a_process_of_another_is_never_touched(tmp_path: Path) -> None:
    pid = _spawn(tmp_path, "import signal; signal.pause()", "mine")
    try:
        assert alive(pid, "mine")
        assert not alive(pid, "other"), "a recycled process id has another token"
        assert not end([pid], "other")
        assert alive(pid, "mine")
    finally:
        end([pid], "mine")
    assert not alive(pid, "mine")


def test_a_daemon_can_be_interrupted_though_its_parent_cannot(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a job that a shell starts with &
    try:
        pid = _spawn(tmp_path, "import signal; print(signal.getsignal(signal.SIGINT).__name__)", "calm")
        assert until(lambda: _log(tmp_path) == ["default_int_handler"])
    finally:
        signal.signal(signal.SIGINT, before)
        end([pid], "calm")


def test_the_log_of_the_start_before_is_kept(tmp_path: Path) -> None:
    _spawn(tmp_path, "print('one')", "log")
    assert until(lambda: _log(tmp_path) == ["one"])
    pid = _spawn(tmp_path, "print('two')", "log")
    assert until(lambda: _log(tmp_path) == ["two"])
    end([pid], "log")
    assert (tmp_path / "logs" / "script.before.log").read_text() == "one\n"
