"""Stages of a small real pipeline: killed, without room, where nothing may be written, with another clock."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import yaml

from pipelines.graph import read_changed
from qartsr.services import start, stop
from qartsr.services.record import read_record
from tests.chaos.damage import Trial, damaged, refused
from tests.pipeline.conftest import copy_project, tiny
from tests.pipelines.alive import until

TRACE = "Traceback (most recent call last)"
PER_SEED = 1_000_000
"""numbers of trials that a seed has"""
LEFT_OUT = ("publish", "report")
"""Stages that need services, or publish's receipts."""
_TOOK: dict[str, float] = {}
"""Seconds of each stage, undisturbed."""
_READY: list[str] = []
"""stages that the trial at hand may choose"""
_FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@functools.cache
def project() -> Path:
    """The pipeline; kept while the campaign lasts."""
    folder = copy_project(Path(tempfile.mkdtemp(prefix="chaos-")), {**tiny(), "bits": ["w4a4"]})
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--force"], cwd=folder, check=True)
    return folder


def one_more_each(number: int) -> None:
    """Before each trial a stage more is run undisturbed: on a busy machine all of them would take half of the hour.

    The trial with this number chooses among the first so many, the first trial of a seed has one: it can be repeated.
    """
    most = len(_order(project()))
    while len(_TOOK) < min(number % PER_SEED + 1, most):
        _one_more()
    _READY[:] = list(_TOOK)[: number % PER_SEED + 1]


def _one_more() -> None:
    name = next(name for name in _order(project()) if name not in _TOOK)
    begun = time.monotonic()
    said, _ = (done := _repro(project(), name)).communicate()
    assert done.returncode == 0, said
    _TOOK[name] = time.monotonic() - begun
    shutil.copy(project() / "dvc.lock", project() / "whole.lock")


@functools.cache
def _order(folder: Path) -> tuple[str, ...]:
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--force"]
    said = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True).stdout
    names = [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage '")]
    return tuple(name for name in names if not name.startswith(LEFT_OUT))


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "AWS_", "PREFECT_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1", **more}


def _repro(folder: Path, name: str, before: Callable[[], object] | None = None, **more: str) -> subprocess.Popen[str]:
    """The stage alone, whatever DVC remembers of it."""
    words = ["--wait-for-lock", "repro", "--single-item", "--force", "--no-run-cache", name]
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", *words], cwd=folder, env=environment(**more), text=True, preexec_fn=before,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def _let(process: subprocess.Popen[str], seconds: float) -> None:
    """Let it run for so long, or to its end: the machine may have become faster."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _heals(name: str) -> None:
    """Run again, the stage ends with the bytes of an undisturbed run: dvc.lock has their hashes."""
    said, _ = (done := _repro(project(), name)).communicate()
    assert done.returncode == 0, said
    assert (project() / "dvc.lock").read_bytes() == (project() / "whole.lock").read_bytes(), f"{name}: other bytes"


def killed(random: Random, folder: Path) -> None:
    """kill -9 of DVC and the stage at any moment."""
    name = random.choice(_READY)
    process = _repro(project(), name)
    _let(process, random.random() * _TOOK[name])
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    _heals(name)


def full(random: Random, folder: Path) -> None:
    """No file may grow beyond some bytes: no traceback of ours, and the next run with room makes up for it."""
    name, most = random.choice(_READY), random.choice((1000, 30_000, 300_000))

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    command = yaml.safe_load((project() / "dvc.lock").read_text())["stages"][name]["cmd"]
    _sentence(command, limit)
    _heals(name)


def read_only(random: Random, folder: Path) -> None:
    """Outputs and checkpoints on a file system that takes nothing."""
    name = random.choice(_READY)
    command = yaml.safe_load((project() / "dvc.lock").read_text())["stages"][name]["cmd"]
    with mounted_read_only(project() / "build"), mounted_read_only(project() / "metrics"):
        assert _sentence(command, None), f"{name}: nothing was written, and nothing said"
    _heals(name)


def _sentence(command: str, before: Callable[[], object] | None) -> bool:
    """Whether the stage failed; then by one sentence."""
    done = subprocess.run(
        ["sh", "-c", command], cwd=project(), env=environment(), capture_output=True, text=True, preexec_fn=before,
        check=False,
    )  # fmt: skip
    assert TRACE not in done.stderr, done.stderr[-3000:]
    assert not done.returncode or "error: " in done.stderr, done.stderr[-3000:]
    return bool(done.returncode)


@contextmanager
def mounted_read_only(folder: Path) -> Iterator[None]:
    """As root by a mount of its own, else by its permissions."""
    folder.mkdir(exist_ok=True)
    if os.getuid():
        mode = folder.stat().st_mode
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(mode)
        return
    libc, bind, remount = ctypes.CDLL(None, use_errno=True), 4096, 4096 | 32 | 1
    place = os.fsencode(folder)
    assert libc.mount(place, place, None, bind, None) == 0, os.strerror(ctypes.get_errno())
    try:
        assert libc.mount(None, place, None, remount, None) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        libc.umount2(place, 2)


def other_clock(random: Random, folder: Path) -> None:
    """A clock that is wrong by years, and one that jumps: the same bytes."""
    name, days = random.choice(_READY), random.choice((-9000, -1, 1, 3000))
    said, _ = (
        done := _repro(project(), name, LD_PRELOAD=str(_FAKETIME), FAKETIME=f"{days:+}d", FAKETIME_NO_CACHE="1")
    ).communicate()
    assert done.returncode == 0, said
    assert (project() / "dvc.lock").read_bytes() == (project() / "whole.lock").read_bytes(), f"{name}: other bytes"


def damaged_lock(random: Random, folder: Path) -> None:
    """The flow reads it, or says in one sentence what is wrong; as it was, nothing is stale."""
    lock, whole = project() / "dvc.lock", (project() / "whole.lock").read_bytes()
    lock.write_bytes(damaged(whole, random))
    try:
        refused(lambda: read_changed(project()))
    finally:
        lock.write_bytes(whole)
    assert not set(read_changed(project())) & set(_TOOK), "as it was, nothing is stale"


def tracked(random: Random, folder: Path) -> None:
    """MLflow killed under a stage that trains: it goes on, to the same bytes."""
    services = _services()
    environment = start(services, ("s3", "mlflow"))
    while not (training := [name for name in _TOOK if name.startswith(("retrain", "quantize", "probe"))]):
        _one_more()
    name = random.choice(training)
    process = _repro(project(), name, **{**environment, "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"})
    _let(process, random.random() * _TOOK[name])
    record = read_record(services, "mlflow")
    assert record is not None
    record.end()
    said, _ = process.communicate()
    assert process.returncode == 0 and TRACE not in said, said
    assert (project() / "dvc.lock").read_bytes() == (project() / "whole.lock").read_bytes(), f"{name}: other bytes"
    assert until(lambda: not record.alive(), 30)


@functools.cache
def _services() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="chaos-services-"))
    atexit.register(stop, folder)
    return folder


STAGES: dict[str, Trial] = {
    "stages, kill -9": killed,
    "stages, disk full": full,
    "stages, read-only": read_only,
    "dvc.lock, damaged": damaged_lock,
    "stages, MLflow killed": tracked,
    **({"stages, another clock": other_clock} if _FAKETIME else {}),
}
