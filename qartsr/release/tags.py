"""Tags of a registered version: what it is, how good it is, what made it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qartsr.errors import QartsrError
from qartsr.files import read_json, sha256_file
from qartsr.release.registry import WEIGHTS

Metrics = Mapping[str, Mapping[str, Any]]
"""Data set -> metric -> mean over its pictures; ``sets`` beside them holds the means of its parts."""


def package_tags(folder: Path, profile: str) -> dict[str, str]:
    """Tags of the package in ``folder``, read from its summary.json and checked against its model file.

    ``psnr``, ``ssim``, … are averages over the data sets; ``fp_psnr``, … the same of the floating-point model. Raises
    QartsrError when either file is missing, or summary.json tells of another one or not enough.
    """
    path = folder / "summary.json"
    summary, actual = read_json(path), sha256_file(folder / WEIGHTS)
    try:
        quality = averages(summary["metrics"])
        reference = {f"fp_{name}": value for name, value in averages(summary["fp"]).items()}
        numbers = {name: f"{value:.6f}" for name, value in {**quality, **reference}.items()}
        identity = {"profile": profile, "bits": str(summary["bits"]), "method": str(summary["method"])}
        described = summary["sha256"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise QartsrError(f"does not describe a package ({error!r})", str(path), "make the package again") from error
    if described != actual:
        raise QartsrError(
            "is not the file that summary.json describes", str(folder / WEIGHTS), "make the package again"
        )
    return {**identity, **numbers, **provenance(Path.cwd())}


def averages(metrics: Metrics) -> dict[str, float]:
    """Mean over the data sets, of every metric that all of them have."""
    tables = [{name: value for name, value in table.items() if name != "sets"} for table in metrics.values()]
    names = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    return {name: sum(table[name] for table in tables) / len(tables) for name in names}


def provenance(project: Path) -> dict[str, str]:
    """Git commit and hash of dvc.lock, as far as there are any."""
    found = {}
    command = ["git", "-C", str(project), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10)
        if commit.returncode == 0:
            found["git_commit"] = commit.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        pass
    lock = project / "dvc.lock"
    return found | ({"dvc_lock": sha256_file(lock)} if lock.is_file() else {})
