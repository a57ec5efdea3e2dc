"""One little base and its checkpoint for all tests of the loader."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.little import checkpoint, write_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lora") / "osediff.pkl"
    torch.save(checkpoint(base), path)
    return path
