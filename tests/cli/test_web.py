"""The page and the server say what is wrong with their sources before they serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Qartsr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "models:/nothing"), "write models:/NAME@ALIAS or models:/NAME/VERSION"),
        (("--model", "models:/nothing/1"), "MLFLOW_TRACKING_URI: is not set"),
        (("--model", "hub:/nothing"), "nobody here can resolve hub:/ addresses"),
        (("--model", "nothing"), "nothing: cannot be read"),
        (("--model", "empty"), "empty/model.safetensors: cannot be read"),
        (("--model", "junk"), "junk: "),
        (("--fp", "empty"), "empty/model.safetensors: cannot be read"),
        (("--allow-promote", "junk"), "junk: "),
    ],
    ids=" ".join,
)
def test_the_page_is_not_shown(
    words: tuple[str, ...], said: str, qartsr: Qartsr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("empty").mkdir()
    Path("junk").write_bytes(b"no model: " * 9)
    status, out, err = qartsr("web", *words)
    assert (status, out) == (1, "") and err.startswith("error: ") and len(err.splitlines()) == 1
    assert said in err
