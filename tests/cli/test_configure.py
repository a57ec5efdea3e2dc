"""Switching profiles never loses what a person wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Qartsr


@pytest.fixture(autouse=True)
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the shipped configurations, and the person in it."""
    shutil.copytree(root / "configs", tmp_path / "configs")
    shutil.copy(root / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_and_back(qartsr: Qartsr, project: Path) -> None:
    said = qartsr("configure", "osediff")
    assert (said.status, said.err) == (0, "")
    assert said.out == (
        "params.yaml is configs/osediff.yaml now; put weights/stable-diffusion-2-1-base, weights/osediff.pkl, "
        "datasets/DIV2K in place (`qartsr doctor` says from where), "
        "then run `dvc repro`, or `make demo` for services and registry as well.\n"
    )
    assert (project / "params.yaml").read_bytes() == (project / "configs" / "osediff.yaml").read_bytes()
    said = qartsr("configure", "sample")
    assert said.status == 0 and said.out.startswith("params.yaml is configs/sample.yaml now; run `dvc repro`")
    assert (project / "params.yaml").read_bytes() == (project / "configs" / "sample.yaml").read_bytes()


def test_a_row_of_the_methods_is_no_change_of_ones_own(qartsr: Qartsr, root: Path, project: Path) -> None:
    (project / "experiments").mkdir()
    shutil.copy(root / "experiments" / "params.yaml", project / "experiments" / "params.yaml")
    for _ in range(2):
        assert qartsr("configure", "sample", "--method", "passionsr").status == 0
    chosen = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(chosen.replace("seed: 0", "seed: 1"))
    assert "has changes" in qartsr("configure", "sample").err
    (project / "params.yaml").write_text(chosen)
    assert qartsr("configure", "sample").status == 0
    assert (project / "params.yaml").read_bytes() == (project / "configs" / "sample.yaml").read_bytes()


def test_every_profile_names_what_its_backbone_is_made_from(qartsr: Qartsr, project: Path) -> None:
    assert "put weights/sample-dit in place" in qartsr("configure", "dit").out
    (project / "weights" / "sample-dit").mkdir(parents=True)
    assert "is configs/dit.yaml now; run `dvc repro`" in qartsr("configure", "dit").out
    said = qartsr("configure", "tsdsr").out
    assert "put weights/stable-diffusion-3-medium, weights/tsdsr, datasets/DIV2K in place" in said


def test_without_params_it_is_made(qartsr: Qartsr, project: Path) -> None:
    (project / "params.yaml").unlink()
    assert qartsr("configure", "sample").status == 0
    assert (project / "params.yaml").is_file()


def test_own_changes_are_kept_unless_forced(qartsr: Qartsr, project: Path) -> None:
    with (project / "params.yaml").open("a") as handle:
        handle.write("# mine\n")
    said = qartsr("configure", "osediff")
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("error: params.yaml: has changes") and "--force" in said.err
    assert (project / "params.yaml").read_text().endswith("# mine\n")
    assert qartsr("configure", "osediff", "--force").status == 0
    assert "# mine" not in (project / "params.yaml").read_text()


@pytest.mark.parametrize("profile", ["nothing", "../params", "sample.yaml"])
def test_an_unknown_profile_is_refused_with_the_known(profile: str, qartsr: Qartsr, project: Path) -> None:
    before = (project / "params.yaml").read_bytes()
    said = qartsr("configure", profile)
    assert said.status == 1
    assert (
        said.err
        == f"error: configs: unknown profile '{profile}'; choose from dit, dloral, osediff, sample, tsdsr, video.\n"
    )
    assert (project / "params.yaml").read_bytes() == before


def test_an_invalid_configuration_never_becomes_params(qartsr: Qartsr, project: Path) -> None:
    (project / "configs" / "mine.yaml").write_text("profile: mine\n")
    said = qartsr("configure", "mine", "--force")
    assert said.status == 1 and said.err.startswith("error: configs/mine.yaml: ")
    assert qartsr("configure", "sample").status == 0


def test_without_a_checkout_the_installation_has_the_profiles(
    qartsr: Qartsr, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel puts them into its environment's share/qartsr; those of the folder one stands in go first."""
    installed = project / "environment" / "share" / "qartsr"
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(project / "environment") if name == "data" else "")
    installed.mkdir(parents=True)
    shutil.move(project / "configs", installed / "configs")
    (project / "dvc.yaml").unlink()
    said = qartsr("configure", "sample", "--force")
    assert said.status == 0 and said.out == (
        f"params.yaml is {installed}/configs/sample.yaml now; "
        "the pipeline that reads it comes with a clone of the repository.\n"
    )
