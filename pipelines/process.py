"""Child processes that stream their output line by line and end together with the flow."""

from __future__ import annotations

import codecs
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, NamedTuple

from pipelines import process_guard

LOST = "Lost"
"""Name of the state of a stage that did not fail but was killed, or whose node failed."""
_KILLED = re.compile(r"exited with (-(?!2\b)\d+|1(29|3[1-9]|[4-9]\d))\b")
_INTERRUPTED = 130
_NODE = re.compile(r"node failure|NODE_FAIL|task \d+.*: (Killed|Terminated)", re.IGNORECASE)


class Options(NamedTuple):
    """What a flow run tells all its stages."""

    launcher: Mapping[str, str]
    """``compute.launcher``"""
    share: bool = False
    """whether outputs may come from the DVC remote"""

    def prefix(self, stage: str) -> list[str]:
        """The words before the command of ``stage``: those of the longest pattern that matches it, else none."""
        base = stage.split("@")[0]
        pattern = max((each for each in self.launcher if fnmatchcase(base, each)), key=len, default="")
        return [word.replace("{name}", stage.replace("/", "-")) for word in shlex.split(self.launcher.get(pattern, ""))]


def lost(status: int, log: Sequence[str]) -> bool:
    """Whether an exit status or the last lines of a stage say that a signal ended it or that its node failed."""
    return (128 < status < 255 and status != _INTERRUPTED) or any(
        _KILLED.search(line) or _NODE.search(line) for line in log
    )


_BAR_SECONDS = 5.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Processes:
    """The processes of one flow run. ``end`` stops them all, with everything they started."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Commands run in ``folder`` with ``environment``."""
        self._folder, self._environment = folder, dict(environment)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock, self._ended = threading.Lock(), False

    def run(self, command: Sequence[str], on_line: Callable[[str], None]) -> int:
        """Run ``command`` to its end, handing on each line of its output; returns its exit status."""
        process = self._start(command)
        assert process.stdout is not None
        try:
            for line in lines(process.stdout):
                on_line(line)
            return process.wait()
        finally:
            self._let_go(process)
            with self._lock:
                self._running.discard(process)
            process.stdout.close()

    def end(self) -> None:
        """End every running process and start no more."""
        with self._lock:
            self._ended = True
            running = list(self._running)
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
        for process in running:
            self._let_go(process)

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._ended:
                raise RuntimeError("the flow is being cancelled")
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", process_guard.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=self._environment,
                start_new_session=True,
            )
            self._running.add(process)
        return process

    def _let_go(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(process_guard.GRACE_SECONDS + 3)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def lines(stream: IO[bytes]) -> Iterator[str]:
    """Lines of ``stream`` as they come, without colours. Of a progress bar redrawn in place, a line now and then."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text, shown = "", float("-inf")
    while block := os.read(stream.fileno(), 1 << 16):
        *parts, text = re.split(r"(\r?\n|\r)", text + decoder.decode(block))
        for line, ending in zip(parts[::2], parts[1::2], strict=True):
            now = time.monotonic()
            if ending != "\r" or now - shown >= _BAR_SECONDS:
                shown = now if ending == "\r" else shown
                if clean := _ESCAPES.sub("", line).rstrip():
                    yield clean
    if clean := _ESCAPES.sub("", text).rstrip():
        yield clean
