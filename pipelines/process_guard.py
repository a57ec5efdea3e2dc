"""Run a command that cannot outlive the process that started it.

``python process_guard.py COMMAND ...`` is started in a session of its own, with a pipe as standard input. When the pipe
closes, because its owner let go or was killed in any way at all, every process of the session is ended. (A Linux
parent-death signal would reach DVC only, not the stage below it, and would fire when the thread that started it ends.)

Run by path and free of imports beyond the standard library: it starts in a few hundredths of a second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 5.0


def _end_session() -> None:
    """Ask every process of the session to stop, then make it."""
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _hold() -> None:
    """Wait until the other end of standard input closes."""
    while os.read(0, 1):
        pass
    _end_session()


def main() -> int:
    """Exit status of the command; 128 + N when signal N ended it."""
    signal.signal(signal.SIGTERM, lambda signum, frame: None)  # a handler, unlike SIG_IGN, is not inherited
    signal.signal(signal.SIGINT, lambda signum, frame: None)
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_hold, daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
