"""The order of the rooms, and what may not be loaded where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.project import ROOT

TORCH_FREE = (
    "pipelines.reproduce",
    "qartsr.config",
    "qartsr.release",
    "qartsr.tracking",
    "qartsr.services",
    "qartsr.remote",
)


def test_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_is_not_loaded(module: str) -> None:
    """What the contract says of our code, asked of the interpreter: third parties could load torch as well."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
