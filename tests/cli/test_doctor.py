"""``qartsr doctor`` finds what a run would end with; ``qartsr completion`` knows every command."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from qartsr.cli.dispatch import COMMANDS
from tests.cli.conftest import Qartsr


@pytest.fixture()
def osediff(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The paper's profile, and a person with nothing of what it needs."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(root / "configs" / "osediff.yaml", tmp_path / "params.yaml"))


def test_all_that_is_missing_is_told_at_once(qartsr: Qartsr, osediff: Path) -> None:
    said = qartsr("doctor", "--json")
    found = {each["what"]: each for each in json.loads(said.out)}
    assert said.status == 1 and "are missing" in said.err
    for what, word in (("backbone.base", "hub"), ("backbone.lora", "OSEDiff"), ("data.images, train", "DIV2K")):
        assert found[what]["state"] == "missing" and word in found[what]["said"]
    assert "122 GB needed" in found["disk"]["said"]  # 512 pairs of 0.16 GB, and 40
    assert "320,000 images" in found["time"]["said"]


def test_what_is_there_is_ok(qartsr: Qartsr, osediff: Path, tmp_path: Path) -> None:
    for part in ("unet", "vae", "text_encoder", "tokenizer"):
        (tmp_path / "weights" / "stable-diffusion-2-1-base" / part).mkdir(parents=True)
    (tmp_path / "weights" / "osediff.pkl").write_bytes(bytes(1000))
    values = yaml.safe_load(osediff.read_text())
    values["data"]["images"] = {"source": "photographs", "train": ["coins"], "test": ["coffee"]}
    osediff.write_text(yaml.safe_dump(values))
    found = {each["what"]: each["state"] for each in json.loads(qartsr("doctor", "--json").out)}
    assert found["backbone.base"] == found["backbone.lora"] == "ok" and "data.images, train" not in found


def test_tsdsrs_files_are_looked_for_one_by_one(
    qartsr: Qartsr, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(root / "configs" / "tsdsr.yaml", tmp_path / "params.yaml")
    for name in ("transformer.safetensors", "vae.safetensors", "prompt_embeds.pt"):
        (tmp_path / "weights" / "tsdsr").mkdir(parents=True, exist_ok=True)
        (tmp_path / "weights" / "tsdsr" / name).write_bytes(bytes(10))
    found = {each["what"]: each for each in json.loads(qartsr("doctor", "--json").out)}
    states = {what: found[f"backbone.{what}"]["state"] for what in ("base", "lora", "prompt")}
    assert states == {"base": "missing", "lora": "ok", "prompt": "missing"}
    assert "pool_embeds.pt is not there" in found["backbone.prompt"]["said"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_is_one_that_the_shell_reads(shell: str, qartsr: Qartsr) -> None:
    said = qartsr("completion", shell)
    assert said.status == 0 and all(command.name in said.out for command in COMMANDS)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert subprocess.run([shell, "-n"], input=said.out, text=True, capture_output=True).stderr == ""
