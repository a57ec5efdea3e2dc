"""Files of one idea, functions of one thought."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.house.project import ROOT

FILES = sorted(
    path for room in ("qartsr", "stages", "experiments", "pipelines") for path in (ROOT / room).rglob("*.py")
)
FILE_LINES, STAGE_LINES, FUNCTION_LINES = 300, 60, 60


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_no_file_and_no_function_is_too_long(path: Path) -> None:
    text = path.read_text()
    limit = STAGE_LINES if path.parent.name in ("stages", "experiments") else FILE_LINES
    assert len(text.splitlines()) <= limit
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert _length(node) <= FUNCTION_LINES, f"{node.name} is {_length(node)} lines long"


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines without the docstring."""
    last = node.end_lineno or node.lineno
    first = node.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return last - node.lineno + 1 - ((first.end_lineno or 0) - first.lineno + 1 if is_docstring else 0)
