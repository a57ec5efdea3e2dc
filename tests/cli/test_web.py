"""The page and the server say what is wrong with their sources before they serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Qartsr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("web", "--model", "models:/nothing"), "write models:/NAME@ALIAS or models:/NAME/VERSION"),
        (("web", "--model", "models:/nothing/1"), "MLFLOW_TRACKING_URI: is not set"),
        (("web", "--model", "hub:/nothing"), "nobody here can resolve hub:/ addresses"),
        (("web", "--model", "nothing"), "nothing: cannot be read"),
        (("web", "--model", "empty"), "empty/model.safetensors: cannot be read"),
        (("web", "--model", "junk"), "junk: "),
        (("web", "--fp", "empty"), "empty/model.safetensors: cannot be read"),
        (("web", "--allow-promote", "junk"), "junk: "),
        (("serve", "nothing", "--port", "0"), "nothing: cannot be read"),
        (("serve", "empty", "--port", "0"), "empty/model.safetensors: cannot be read"),
        (("serve", "junk", "--port", "0"), "junk: "),
    ],
    ids=" ".join,
)
def test_nothing_is_served(
    words: tuple[str, ...], said: str, qartsr: Qartsr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("empty").mkdir()
    Path("junk").write_bytes(b"no model: " * 9)
    status, out, err = qartsr(*words)
    assert (status, out) == (1, "") and err.startswith("error: ") and len(err.splitlines()) == 1
    assert said in err
