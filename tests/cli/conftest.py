"""A small real package, and a terminal's worth of what a command said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from qartsr.cli import main
from qartsr.export import skeleton
from qartsr.packing import add_graphs, load_package, write_package
from tests.packing.tiny import quantize, recipe, tiny_model


class Said(NamedTuple):
    """What came of a command."""

    status: int
    out: str
    err: str


Qartsr = Callable[..., Said]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A W4A4 package of the smallest model, with its graphs, as the stage makes them."""
    path = tmp_path_factory.mktemp("package") / "model.safetensors"
    model = tiny_model()
    plan = quantize(model, "w4a4", recipe())
    write_package(path, model, plan, {"profile": "test", "data": {"sha256": "ab"}})
    add_graphs(path, skeleton(load_package(path)))
    return path


@pytest.fixture()
def qartsr(capsys: pytest.CaptureFixture[str]) -> Qartsr:
    """``qartsr("inspect", path)`` runs that command in this process."""

    def run(*words: object) -> Said:
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as usage:
            status = int(usage.code or 0)
        return Said(status, *capsys.readouterr())

    return run
