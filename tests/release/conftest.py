"""Packages to publish, and the registry seen with MLflow's own client."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from qartsr.config.schema import PromoteConfig
from qartsr.files import sha256_file, write_json
from qartsr.release import Receipt, model_name, package_tags, publish

BITS = "w4a4"


def gate(bits: str, luma: float, rgb: float, to_fp: float) -> PromoteConfig:
    """Limits of one bit-width, in dB."""
    return PromoteConfig(max_psnr_loss={bits: luma}, max_psnr_rgb_loss={bits: rgb}, min_psnr_rgb_to_fp={bits: to_fp})


GATE = gate(BITS, 0.5, 1.0, 30.0)


@pytest.fixture()
def profile() -> str:
    """A profile of its own for every test, so that each begins without versions."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture()
def name(profile: str) -> str:
    return model_name(profile, BITS)


@pytest.fixture()
def client(servers: dict[str, str]) -> MlflowClient:
    return MlflowClient()


def make_package(folder: Path, psnr: float = 30.0, fp: float = 30.25) -> Path:
    """A package of random bytes, as the package stage leaves it; returns its folder."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(5000))
    (folder / "README.md").write_text(f"# a card, PSNR {psnr}")
    describe(folder, psnr, fp)
    return folder


def describe(folder: Path, psnr: float, fp_psnr: float, **changes: Any) -> None:
    """Write summary.json."""
    summary = {
        "sha256": sha256_file(folder / "model.safetensors"),
        "bits": BITS,
        "method": "qartsr",
        "metrics": {
            "one": {"psnr": psnr - 1, "ssim": 0.8, "niqe": 5.0, "psnr_rgb": 28.0, "psnr_rgb_to_fp": 39.0},
            "two": {"psnr": psnr + 1, "ssim": 0.9, "psnr_rgb": 30.0, "psnr_rgb_to_fp": 41.0},
        },
        "fp": {
            "one": {"psnr": fp_psnr - 1, "ssim": 0.9, "psnr_rgb": 29.5},
            "two": {"psnr": fp_psnr + 1, "ssim": 0.9, "psnr_rgb": 29.5},
        },
    }
    write_json(folder / "summary.json", {**summary, **changes})


Ship = Callable[..., Receipt]


@pytest.fixture()
def ship(servers: dict[str, str], profile: str, tmp_path: Path) -> Ship:
    """Make and publish a package of a given quality."""
    return lambda psnr=30.0, fp=30.25: _ship(tmp_path, profile, psnr, fp)


@pytest.fixture(scope="module")
def shipped(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Receipt:
    """A published version for tests that only look."""
    return _ship(tmp_path_factory.mktemp("shipped"), f"test-{uuid.uuid4().hex[:12]}")


def _ship(folder: Path, profile: str, psnr: float = 30.0, fp: float = 30.25) -> Receipt:
    package = make_package(folder / uuid.uuid4().hex, psnr, fp)
    return publish(package / "model.safetensors", model_name(profile, BITS), package_tags(package, profile), "qartsr")


def aliases(client: MlflowClient, name: str) -> dict[str, int]:
    """Alias -> version."""
    return {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()}
