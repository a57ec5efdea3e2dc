"""Child processes: their output, their exit status, and that none survives its flow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipelines.process import Processes, lines
from tests.pipelines.alive import alive, until

# A stage below DVC: a child with a child of its own, both writing their process numbers.
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open("pids.tmp", "w").write(f"{os.getpid()} {child.pid}")
os.rename("pids.tmp", "pids")
print("started", flush=True)
time.sleep(60)
"""


@pytest.fixture()
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path, os.environ)


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def _pids(folder: Path) -> list[int]:
    assert until((folder / "pids").exists)
    return [int(word) for word in (folder / "pids").read_text().split()]


def test_both_streams_arrive_line_by_line(processes: Processes) -> None:
    heard: list[str] = []
    assert processes.run(_python("import sys; print('one'); print('two', file=sys.stderr)"), heard.append) == 0
    assert sorted(heard) == ["one", "two"]


@pytest.mark.parametrize(
    ("code", "status"), [("exit(0)", 0), ("exit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_exit_status_is_handed_on(processes: Processes, code: str, status: int) -> None:
    assert processes.run(_python(code), lambda line: None) == status


def test_command_runs_in_the_folder_with_the_environment(tmp_path: Path) -> None:
    heard: list[str] = []
    code = "import os; print(os.getcwd(), os.environ['COLOUR'], os.isatty(0))"
    Processes(tmp_path, {**os.environ, "COLOUR": "blue"}).run(_python(code), heard.append)
    assert heard == [f"{tmp_path.resolve()} blue False"]


def test_of_a_progress_bar_only_some_states_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_bytes(b"start\n" + b"".join(b"\r%d%%" % n for n in range(100)) + b"\x1b[32m\r\ndone\xff\ncut")
    with file.open("rb") as stream:
        heard = list(lines(stream))
    assert heard[0] == "start" and heard[-2:] == ["done\ufffd", "cut"]
    assert len(heard) <= 6


def test_ending_kills_the_whole_family(processes: Processes, tmp_path: Path) -> None:
    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(processes.run(_python(FAMILY), lambda line: None)))
    thread.start()
    family = _pids(tmp_path)
    processes.end()
    thread.join(15)
    assert status and status[0] != 0
    assert until(lambda: not any(alive(pid) for pid in family))
    with pytest.raises(RuntimeError, match="cancelled"):
        processes.run(_python("pass"), lambda line: None)


def test_kill_9_of_the_owner_leaves_no_orphan(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom pipelines.process import Processes\n"
        f"Processes(Path({str(tmp_path)!r}), os.environ).run([sys.executable, '-c', {FAMILY!r}], print)"
    )
    owner = subprocess.Popen(_python(code), stdout=subprocess.DEVNULL)
    family = _pids(tmp_path)
    assert all(alive(pid) for pid in family)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert until(lambda: not any(alive(pid) for pid in family))


def test_a_stage_that_ignores_the_polite_request_is_killed(processes: Processes, tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY
    thread = threading.Thread(target=processes.run, args=(_python(code), lambda line: None))
    thread.start()
    family = _pids(tmp_path)
    processes.end()
    thread.join(20)
    assert not thread.is_alive()
    assert until(lambda: not any(alive(pid) for pid in family))
