"""Commands as processes of their own: killed at any moment, without room on the disk, where nothing may be written."""

from __future__ import annotations

import atexit
import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from qartsr.files import sha256_file
from tests.chaos.damage import Trial
from tests.conftest import ROOT
from tests.packing.test_damage import real

IMAGES = 24
_TRACE = "Traceback (most recent call last)"


@functools.cache
def site() -> Path:
    """A package, pictures, and what an undisturbed run makes of them; kept while the campaign lasts."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "model.safetensors").write_bytes(real())
    (folder / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(folder / "in" / f"{number:03}.png")
    done = _command("upscale", folder / "in", folder / "whole", "--manifest", folder / "whole.jsonl")
    assert done.wait(300) == 0
    return folder


def _command(*words: object, before: Callable[[], object] | None = None) -> subprocess.Popen[str]:
    model = ["--model", str(site_package()), "--engine", "simulated", "-q"] if words[0] == "upscale" else []
    command = [sys.executable, "-m", "qartsr.cli", *map(str, words), *model]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=before,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@functools.cache
def site_package() -> Path:
    """The package alone, for the run that makes the rest."""
    file = Path(tempfile.mkdtemp(prefix="chaos-")) / "model.safetensors"
    atexit.register(shutil.rmtree, file.parent, ignore_errors=True)
    file.write_bytes(real())
    return file


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.glob("[!.]*"))}


def killed(random: Random, folder: Path) -> None:
    """kill -9 at any moment, perhaps twice; the next run ends with the files of an undisturbed one, none twice."""
    out, log = folder / "out", folder / "log.jsonl"
    words = ("upscale", site() / "in", out, "--manifest", log)
    for _ in range(random.randrange(1, 3)):
        process, rows, begun = _command(*words), random.randrange(IMAGES), time.monotonic()
        while process.poll() is None and time.monotonic() - begun < 90:
            if log.exists() and log.read_bytes().count(b"\n") >= rows:
                break
            time.sleep(0.005)
        time.sleep(random.random() / 5)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for path in out.glob("[!.]*") if out.exists() else []:
            assert sha256_file(path) == sha256_file(site() / "whole" / path.name), "half a file"
    last = _command(*words)
    _, errors = last.communicate(timeout=200)
    assert last.returncode == 0, errors
    assert _hashes(out) == _hashes(site() / "whole")
    names = [json.loads(line)["name"] for line in log.read_text().splitlines()]
    assert names == sorted(path.name for path in (site() / "in").iterdir())


def full(random: Random, folder: Path) -> None:
    """No file may grow beyond a few bytes, as on a full disk: status 1, no traceback, nothing half written."""
    most = random.choice((0, 100, 1000, 3000))

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    out = folder / "out"
    process = _command(
        "upscale", site() / "in", out, *random.choice(((), ("--manifest", folder / "log"))), before=limit
    )
    _, errors = process.communicate(timeout=200)
    assert process.returncode not in (0, -9) and _TRACE not in errors, errors
    for path in out.glob("[!.]*") if out.exists() else []:
        assert sha256_file(path) == sha256_file(site() / "whole" / path.name), "half a file"


COMMANDS: dict[str, Trial] = {"upscale, kill -9": killed, "upscale, disk full": full}
