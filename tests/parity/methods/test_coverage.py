"""Every file and every case of the methods' tensors is compared by some test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.parity.methods.fixtures import FOLDER, KINDS, MISSING, header, kinds, shapes

HERE = Path(__file__).parent


@pytest.fixture()
def files() -> list[str]:
    if not FOLDER.is_dir():
        pytest.skip(MISSING)
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def test_every_case_is_of_one_kind(files: list[str]) -> None:
    assert set(files) == set(KINDS) == {path.stem for path in FOLDER.glob("*.safetensors")}
    for file in files:
        for case in header(file)["cases"]:
            assert len(kinds(file, case)) == 1 and shapes(file, case), (file, case, kinds(file, case))


def test_every_kind_has_a_test() -> None:
    """``each(kind, files...)`` stands above one."""
    tested: set[tuple[str, str]] = set()
    for path in HERE.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "each":
                kind, *of = (ast.literal_eval(argument) for argument in node.args)
                tested |= {(file, kind) for file in of}
    missing = {(file, kind) for file, found in KINDS.items() for kind in found} - tested
    assert missing == {("quantvsr_stca", "left out"), ("svdquant_group", "tensor")}  # read by the tests of others
