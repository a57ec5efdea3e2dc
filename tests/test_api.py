"""``import qartsr`` costs nothing; what it offers is there when somebody asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import qartsr
from qartsr.errors import QartsrError
from qartsr.upscale.pipeline import OneStepSRPipeline

HEAVY = ("torch", "diffusers", "numpy", "PIL", "pydantic", "boto3", "mlflow", "pandas")


def test_importing_loads_nothing(root: Path) -> None:
    code = f"import sys, qartsr; print(dir(qartsr)); sys.exit(bool(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "OneStepSRPipeline" in done.stdout, done.stderr


def test_every_name_is_there() -> None:
    assert qartsr.OneStepSRPipeline is OneStepSRPipeline and qartsr.QartsrError is QartsrError
    assert set(qartsr.__all__) <= set(dir(qartsr))
    with pytest.raises(AttributeError, match="module 'qartsr' has no attribute 'OneStep'"):
        qartsr.OneStep  # noqa: B018
