"""Arguments of promote and rollback; what they do stands in tests/release and tests/pipeline, with real servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Qartsr


@pytest.fixture(autouse=True)
def no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_without_a_registry_the_variable_is_named(command: str, qartsr: Qartsr, root: Path) -> None:
    said = qartsr(command, "w4a4", "--params", root / "params.yaml")
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("error: MLFLOW_TRACKING_URI: is not set") and len(said.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_bits_and_parameters_are_checked_first(command: str, qartsr: Qartsr, root: Path, tmp_path: Path) -> None:
    said = qartsr(command, "w4", "--params", root / "params.yaml")
    assert said.err == "error: bits: unknown bit-width 'w4'; write w{2..8}a{2..8}, for example w4a4.\n"
    said = qartsr(command, "w4a4", "--params", tmp_path / "params.yaml")
    assert said.status == 1 and said.err.startswith(f"error: {tmp_path / 'params.yaml'}: cannot be read")


def test_a_version_is_a_number_above_0(qartsr: Qartsr) -> None:
    assert qartsr("promote", "w4a4", "--version", "0").status == 2
    assert qartsr("promote", "w4a4", "--version", "new").status == 2
    assert qartsr("rollback", "w4a4", "--version", "1").status == 2
