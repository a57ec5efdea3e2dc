"""Rows of the experiments through the stages of the main graph: laid out, quantized, trained, packed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from qartsr import OneStepSRPipeline
from qartsr.cli.configure import with_method
from qartsr.files import sha256_file, write_json
from qartsr.models import save_model
from qartsr.packing import load_package
from tests.pipeline.conftest import copy_project, tiny
from tests.training.tiny import one_step

Stage = Callable[..., None]


@pytest.fixture()
def stage(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Runs a stage in this process, in a folder with a little model and two calibration pairs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    save_model(one_step(), tmp_path / "model")
    (tmp_path / "pairs").mkdir()
    crop = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    save_file({"hr": crop, "lq": crop.clone(), "lr": crop[..., ::4, ::4].contiguous()}, "pairs/pairs.safetensors")

    def run(name: str, *words: str, bits: str = "w4a4") -> None:
        per_bits = () if name == "method" else ("--bits", bits)
        monkeypatch.setattr(sys, "argv", [name, *per_bits, *words])
        import_module(f"stages.{name}").main()

    return run


def _params(root: Path, monkeypatch: pytest.MonkeyPatch, method: str, **changes: Any) -> None:
    """params.yaml here: the sample profile with a row of the experiments as its method, four steps in all."""
    with monkeypatch.context() as patch:
        patch.chdir(root)
        values = yaml.safe_load(with_method((root / "configs" / "sample.yaml").read_text(), method))
    values["budget"] = {"steps": 4, "batch": 1, "lr": 1e-3}
    values["common"] |= {"edge_layers": ["unet.conv_in"]}
    values["compute"] |= {"device": "cpu", "threads": 1}
    Path("params.yaml").write_text(yaml.safe_dump(values | changes))


METHOD = ("--layers", "layers.yaml", "--quantize", "quantize.yaml", "--extend", "extend.yaml")
SHARED = ("--model", "model", "--calibration", "pairs", "--work", "work")
QUANTIZE = ("--layers", "layers.yaml", "--phases", "quantize.yaml", *SHARED, "--out", "first", "--curves", "first.csv")
EXTEND = ("--phases", "extend.yaml", "--state", "first", *SHARED, "--out", "last", "--curves", "last.csv")


@pytest.mark.parametrize(
    ("method", "phases"),
    [
        pytest.param("passionsr", [0, 0, 1, 1], marks=pytest.mark.slow),
        ("maxmin", []),
        pytest.param("quantvsr", [0, 0, 1, 1], marks=pytest.mark.slow),
        pytest.param("svdquant", [], marks=pytest.mark.slow),
        pytest.param("efficientdm", [0] * 4, marks=pytest.mark.slow),
    ],
)
def test_a_row_becomes_a_package(
    method: str, phases: list[int], stage: Stage, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _params(root, monkeypatch, method)
    stage("method", *METHOD)
    stage("quantize", *QUANTIZE)
    stage("extend", *EXTEND)
    lines = (tmp_path / "last.csv").read_text().splitlines()
    assert [int(line.split(",")[lines[0].split(",").index("phase")]) for line in lines[1:]] == phases
    assert [int(line.split(",")[lines[0].split(",").index("step")]) for line in lines[1:]] == list(range(len(phases)))
    assert (tmp_path / "first.csv").read_text() == "step\n"
    assert not list((tmp_path / "work").rglob("*.safetensors"))  # finished: nothing of the scratch is left
    write_json(tmp_path / "scores.json", {"photographs": {"psnr": 30.0}})
    stage(
        "package",
        "--model",
        "model",
        "--state",
        "last",
        "--metrics",
        "scores.json",
        "--fp",
        "scores.json",
        "--out",
        "p",
    )
    summary = json.loads((tmp_path / "p" / "summary.json").read_text())  # proven equal to the trained model
    assert summary["sha256"] == sha256_file(tmp_path / "p" / "model.safetensors")
    assert torch.isfinite(load_package(tmp_path / "p" / "model.safetensors")(torch.zeros(1, 3, 32, 32))).all()


def test_an_edit_of_a_phase_leaves_what_is_before_it_alone(
    stage: Stage, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages of the graph depend on these files, not on ``method`` as a whole."""
    _params(root, monkeypatch, "qartsr")
    stage("method", *METHOD)
    before = {name: (tmp_path / name).read_bytes() for name in ("layers.yaml", "quantize.yaml", "extend.yaml")}
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["method"]["phases"][1]["loss"] = {"lpips": 0.0, "mse": 1.0}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    stage("method", *METHOD)
    assert {name for name, data in before.items() if (tmp_path / name).read_bytes() != data} == {"extend.yaml"}
    values["method"]["layer"]["skip"]["rank"] = 3
    values["method"]["phases"][0]["module_loss"] = 0.5
    Path("params.yaml").write_text(yaml.safe_dump(values))
    stage("method", *METHOD)
    assert all((tmp_path / name).read_bytes() != data for name, data in before.items())


@pytest.mark.pipeline
@pytest.mark.slow
def test_passionsr_through_dvc(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The main graph, from the photographs to a package that enlarges a picture."""
    monkeypatch.chdir(root)
    row = yaml.safe_load(with_method((root / "configs" / "sample.yaml").read_text(), "passionsr"))["method"]
    values = tiny() | {"method": row, "bits": ["w4a4"], "evaluate": {"metrics": ["psnr", "psnr_rgb"]}}
    project = copy_project(tmp_path, values)
    command = [sys.executable, "-m", "dvc", "repro", "--no-commit", "package@w4a4"]
    run = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    package = project / "build" / "packages" / "w4a4"
    assert json.loads((package / "summary.json").read_text())["method"] == "PassionSR"
    pipe = OneStepSRPipeline.from_pretrained(package, device="cpu")
    assert pipe(Image.new("RGB", (19, 33), "teal")).size == (76, 132)
