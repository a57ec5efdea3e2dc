"""A scratch copy of the project with a tiny budget: the real stages on photographs or corners of them, a few steps."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from qartsr.models import Backbone, save_model
from tests.conftest import ROOT
from tests.models.little import checkpoint, write_base
from tests.packing.tiny import tiny_model


def tiny(*bits: str) -> dict[str, Any]:
    """The sample profile with next to no training, at W4A4 alone unless ``bits`` says more."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "sample.yaml").read_text())
    values["profile"] = "tiny"
    values["bits"] = list(bits or ["w4a4"])
    values["compute"] |= {"threads": 1, "threads_alone": 1, "lanes": 2, "checkpoint_seconds": 0.2}
    values["data"]["images"] |= {"train": ["camera", "rocket", "coins"], "test": ["chelsea"]}
    values["calibrate"] = {"pairs": 4, "lr_size": 8}
    values["retrain"] |= {"steps": 3, "batch": 2}
    values["probe"] |= {"timesteps": [1], "steps": 1, "bits": ["w4a4"], "crop": 64}
    values["budget"] |= {"steps": 4, "batch": 2}
    modules, model = values["method"]["phases"]
    modules["steps"], model["steps"] = 1, 2
    values["promote"] = {
        "max_psnr_loss": {"w4a4": 40.0, "w2a2": 0.01},
        "max_psnr_rgb_loss": {"w4a4": 40.0, "w2a2": 40.0},
        "min_psnr_rgb_to_fp": {"w4a4": 0.0, "w2a2": 0.0},
    }
    return values


def little_osediff(base: Path) -> dict[str, Any]:
    """``configs/osediff.yaml`` with other weights, photographs and sizes; what trains and on which losses stays."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "osediff.yaml").read_text())
    values["compute"] |= {
        "device": "cpu",
        "threads_alone": 1,
        "checkpoint_seconds": 0.01,
        "micro_batch": 1,
        "loaders": 2,
    }
    values["data"]["images"] = {"source": "photographs", "train": ["camera", "coins"], "test": ["chelsea"]}
    torch.save(checkpoint(write_base(base)), base / "osediff.pkl")
    values["backbone"] |= {"base": str(base), "lora": str(base / "osediff.pkl")}
    values["retrain"] |= {"base": str(base), "steps": 8, "batch": 2, "crop": 64, "warmup": 2}
    values["probe"] |= {"timesteps": [1], "bits": ["w4a4"]}
    values["lpips"] = {"backbone": "random", "seed": 0}
    return values


def copy_project(folder: Path, values: dict[str, Any], sample: Backbone | None = None) -> Path:
    """Tracked files of the working tree in a git repository of its own, with these parameters.

    ``sample``: in the place of ``weights/sample``, which takes seconds of every stage.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in listed.split("\0"):
        if name and not name.startswith(("tests/", "docs/")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    if sample is not None:
        shutil.rmtree(folder / "weights" / "sample")
        save_model(sample, folder / "weights" / "sample")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "copy"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scratch project."""
    values, pictures = tiny(), tmp_path_factory.mktemp("pictures")
    values["compute"]["checkpoint_seconds"] = 20
    values["data"]["images"] = {
        "source": "folder",
        "train_root": str(pictures / "train"),
        "test_root": str(pictures / "test"),
    }
    for name, split in {"dogs": "test", "autumn": "train", "forest": "train", "rocks": "train"}.items():
        (pictures / split).mkdir(exist_ok=True)
        with Image.open(ROOT / "photographs" / f"{name}.webp") as photograph:
            photograph.crop((0, 0, 160, 128)).save(pictures / split / f"{name}.png")
    return copy_project(tmp_path_factory.mktemp("project"), values, tiny_model())
