"""``python -m qartsr.services``: its sentences and its exit status."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import urlopen

import pytest

from qartsr.services import start, status, stop
from tests.services.looking import command, processes


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("start", "s4"), "error: services: there is no service 's4'; choose among s3, mlflow, prefect."),
        (("stop", "s4"), "error: services: there is no service 's4'; choose among s3, mlflow, prefect."),
        (("env",), "the services were never started here; run `python -m qartsr.services start`."),
        (("start", "--root", "/dev/null/x"), "error: /dev/null/x: cannot be made (Not a directory); choose another"),
        (("start", "--root", "/dev/null/C#"), "error: /dev/null/C#: has a # % or ? in its path, which the servers"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    root = () if "--root" in words else ("--root", str(tmp_path / "none"))
    asked = command(*words, *root)
    _, errors = asked.communicate(timeout=60)
    assert asked.returncode == 1
    assert sentence in errors and len(errors.splitlines()) == 1


def test_before_the_first_start(tmp_path: Path) -> None:
    assert status(tmp_path / "none") == {"s3": "stopped", "mlflow": "stopped", "prefect": "stopped"}
    assert stop(tmp_path / "none") == ()
    assert not (tmp_path / "none").exists()


@pytest.mark.services
@pytest.mark.slow
def test_all_three(tmp_path: Path, database: str) -> None:
    """Also in a folder whose name is hard on databases and shells; with PostgreSQL they keep no data of their own."""
    root = tmp_path / "it's ä b"
    try:
        starting = command("start", "--root", str(root))
        output, errors = starting.communicate(timeout=320)
        assert starting.returncode == 0, errors
        states = status(root)
        assert all(address.startswith("http://127.0.0.1:") for address in states.values())
        assert all(f"{name}  {address}" in output for name, address in states.items())
        assert {line.split(" ready at ")[0] for line in errors.splitlines()} == {"s3", "mlflow", "prefect"}
        environment = start(root)
        assert environment["PREFECT_API_URL"] == f"{states['prefect']}/api"
        assert environment["MLFLOW_TRACKING_URI"] == states["mlflow"]
        with urlopen(f"{states['prefect']}/ui-settings") as answer:  # what its page asks, on whatever port it is
            assert json.load(answer)["api_url"] == environment["PREFECT_API_URL"]
        assert [path.name for path in root.glob("mlflow/*")] == ([] if database else ["mlflow.db"])
        assert any(root.glob("prefect/prefect.db")) is not bool(database)
        assert set(stop(root)) == {"s3", "mlflow", "prefect"}
        assert processes(root) == []
    finally:
        stop(root)
