"""The whole pipeline through Prefect, DVC, MLflow and S3, all real, at a tiny budget."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from qartsr.files import sha256_file
from tests.pipeline.conftest import copy_project, tiny

pytestmark = [pytest.mark.long, pytest.mark.pipeline, pytest.mark.services]


@pytest.fixture(scope="module", autouse=True)
def _flows(prefect_server: str) -> Iterator[None]:
    """The flows tell a server that is there, as after `make services`; else each would start one of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", prefect_server)
        yield


def _run(project: Path, *command: str, ok: bool = True) -> str:
    """Run a command of this environment in the project; returns what it printed."""
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, cwd=project, env=environment, text=True, capture_output=True, timeout=1200)
    output = done.stdout + done.stderr
    assert (done.returncode == 0) is ok, output[-6000:]
    return output


@pytest.fixture(scope="module")
def ran(project: Path, servers: dict[str, str]) -> Path:
    """The project after one run of the flow."""
    _run(project, sys.executable, "-m", "pipelines.reproduce")
    return project


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def test_every_result_is_there(ran: Path) -> None:
    found = {name: _json(ran / "metrics" / f"{name}.json")["plain"] for name in ("bicubic", "fp", "w4a4")}
    assert found["bicubic"]["psnr"] > 25 > found["fp"]["psnr"] > 5  # of a network that has learned nothing
    assert all(0 < values["ssim"] <= 1 for values in found.values())
    assert 15 < found["w4a4"]["psnr_rgb_to_fp"] < 60
    summary = _json(ran / "build" / "packages" / "w4a4" / "summary.json")
    assert summary["sha256"] == sha256_file(ran / "build" / "packages" / "w4a4" / "model.safetensors")
    assert (ran / "build" / "report" / "index.html").stat().st_size > 10_000


def test_registered_once_and_stored(ran: Path, servers: dict[str, str]) -> None:
    receipt = _json(ran / "build" / "receipts" / "w4a4.json")
    assert receipt["model"] == "qartsr-tiny-w4a4"
    assert receipt["uri"].startswith("s3://") and receipt["sha256"] in receipt["uri"]
    again = ["-m", "stages.publish", "--bits", "w4a4", "--package", "build/packages/w4a4", "--receipt", "again.json"]
    _run(ran, sys.executable, *again)
    assert _json(ran / "again.json")["version"] == receipt["version"]


def test_a_second_run_does_nothing(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server too: the flow starts one and ends it."""
    monkeypatch.delenv("PREFECT_API_URL")
    before = (ran / "dvc.lock").read_bytes()
    output = _run(ran, sys.executable, "-m", "pipelines.reproduce")
    assert (ran / "dvc.lock").read_bytes() == before
    assert "Running stage" not in output


def test_a_bit_widths_parameter_makes_its_own_stages_stale(ran: Path) -> None:
    path = ran / "params.yaml"
    original = path.read_text()
    values = yaml.safe_load(original)
    values["precision"]["w4a4"]["lr_scale"] = 0.5
    path.write_text(yaml.safe_dump(values))
    status = json.loads(_run(ran, "dvc", "status", "--json").splitlines()[0])
    path.write_text(original)
    assert set(status) == {"quantize@w4a4", "extend@w4a4"}


def test_gate_promotion_and_use(ran: Path) -> None:
    path = ran / "params.yaml"
    original = path.read_text()
    strict = yaml.safe_load(original)
    strict["promote"]["min_psnr_rgb_to_fp"]["w4a4"] = 90.0
    path.write_text(yaml.safe_dump(strict))
    refusal = _run(ran, "qartsr", "promote", "w4a4", ok=False)
    path.write_text(original)
    assert "needed are 90.00 dB" in refusal
    _run(ran, "qartsr", "promote", "w4a4")
    low = ran / "low.png"
    Image.open(ran / "build" / "data" / "test" / "LR" / "dogs.png").crop((0, 0, 37, 21)).save(low)
    _run(ran, "qartsr", "upscale", "low.png", "high.png", "--model", "models:/qartsr-tiny-w4a4@champion")
    with Image.open(ran / "high.png") as high:
        assert high.size == (148, 84)


def test_dvc_lists_the_metrics(ran: Path) -> None:
    output = _run(ran, "dvc", "metrics", "show")
    for name in ("bicubic", "fp", "w4a4"):
        assert f"metrics/dvc/{name}.json" in output.replace(os.sep, "/")


@pytest.mark.slow
def test_two_bit_widths_side_by_side(tmp_path: Path, servers: dict[str, str]) -> None:
    both = copy_project(tmp_path, tiny("w4a4", "w2a2"))
    _run(both, sys.executable, "-m", "pipelines.reproduce")
    psnr = {name: _json(both / "metrics" / f"{name}.json")["photographs"] for name in ("fp", "w4a4", "w2a2")}
    colours = [psnr[name]["psnr_rgb"] for name in ("fp", "w4a4", "w2a2")]
    assert sorted(colours, reverse=True) == colours
    assert psnr["w4a4"]["psnr_to_fp"] > psnr["w2a2"]["psnr_to_fp"]
    sizes = [(both / "build" / "packages" / bits / "model.safetensors").stat().st_size for bits in ("w4a4", "w2a2")]
    assert sizes[1] < sizes[0]
    values = yaml.safe_load((both / "params.yaml").read_text())
    values["precision"]["w2a2"]["lr_scale"] = 0.5
    (both / "params.yaml").write_text(yaml.safe_dump(values))
    status = json.loads(_run(both, "dvc", "status", "--json").splitlines()[0])
    assert set(status) == {"quantize@w2a2", "extend@w2a2"}
