"""Tags of a package: what it is, how good it is, what made it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from qartsr.errors import QartsrError
from qartsr.files import sha256_file, write_json
from qartsr.release import package_tags
from tests.release.conftest import describe, make_package


@pytest.fixture()
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package, in a folder that is no git repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return make_package(tmp_path / "package", psnr=30.0, fp=30.25)


def test_averages_of_what_every_data_set_has(package: Path) -> None:
    assert package_tags(package, "sample") == {
        "profile": "sample",
        "bits": "w4a4",
        "method": "qartsr",
        "psnr": "30.000000",
        "psnr_rgb": "29.000000",
        "psnr_rgb_to_fp": "40.000000",
        "ssim": "0.850000",
        "fp_psnr": "30.250000",
        "fp_psnr_rgb": "29.500000",
        "fp_ssim": "0.900000",
    }


def test_means_over_parts_of_a_data_set_are_no_tags(package: Path) -> None:
    parts = {"sets": {"photographs": {"pictures": 3, "psnr": 10.0}}}
    describe(package, 30.0, 30.25, metrics={"one": {"psnr": 30.0, **parts}}, fp={"one": {"psnr": 31.0, **parts}})
    tags = package_tags(package, "sample")
    assert (tags["psnr"], tags["fp_psnr"]) == ("30.000000", "31.000000") and not {"sets", "fp_sets"} & set(tags)


def test_what_made_it(package: Path, tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "dvc.lock"], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", *command], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    tags = package_tags(package, "sample")
    assert tags["git_commit"] == commit and len(commit) == 40
    assert tags["dvc_lock"] == sha256_file(tmp_path / "dvc.lock")


def test_without_git(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "git_commit" not in package_tags(package, "sample")


def test_a_summary_of_another_file(package: Path) -> None:
    (package / "model.safetensors").write_bytes(b"other")
    with pytest.raises(QartsrError, match=r"model\.safetensors: is not the file that summary\.json describes"):
        package_tags(package, "sample")


@pytest.mark.parametrize(
    "changes", [{"metrics": None}, {"fp": [1]}, {"metrics": {"one": 1}}, {"metrics": {"one": {"psnr": "high"}}}]
)
def test_a_summary_that_is_damaged(package: Path, changes: dict[str, Any]) -> None:
    describe(package, 30.0, 30.0, **changes)
    with pytest.raises(QartsrError, match=r"summary\.json: does not describe a package .*; make the package again"):
        package_tags(package, "sample")


@pytest.mark.parametrize("summary", [{}, [], "text", {"sha256": "0"}])
def test_a_summary_that_says_too_little(package: Path, summary: object) -> None:
    write_json(package / "summary.json", summary)
    with pytest.raises(QartsrError, match="does not describe a package"):
        package_tags(package, "sample")


@pytest.mark.parametrize("file", ["summary.json", "model.safetensors"])
def test_a_missing_file(package: Path, file: str) -> None:
    (package / file).unlink()
    with pytest.raises(QartsrError, match=f"{file}: cannot be read"):
        package_tags(package, "sample")
