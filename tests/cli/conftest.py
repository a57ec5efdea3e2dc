"""A terminal's worth of what a command said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from qartsr.cli import main


class Said(NamedTuple):
    """What came of a command."""

    status: int
    out: str
    err: str


Qartsr = Callable[..., Said]


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


@pytest.fixture()
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it is not installed: for tests of anything but engines; a network takes it half a second to load."""
    monkeypatch.setitem(sys.modules, "openvino", None)
