"""One style of docstrings: prose, at most a section ``Parameters``; who takes or gives tensors says of what shape."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.house.project import ROOT

FILES = sorted((ROOT / "qartsr").rglob("*.py"))
_SECTION = re.compile(r"^\s*(Args|Arguments|Returns?|Raises|Parameters|Yields|Attributes|Examples?|Notes?):?\s*$", re.M)
_SECTIONS = {"Parameters"}
_SHAPE = re.compile(r"\([^()]*,[^()]*\)|\(\)|\bshaped?\b|\bshapes\b|\bscalars?\b|[Ss]ee :meth:|like the weight")
"""``(B, 3, H, W)``, ``(O,)``, "of any shape", "a scalar", or where it is said."""


class Method(NamedTuple):
    """A public function, or a method with its class."""

    function: ast.FunctionDef
    owner: ast.ClassDef | None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _public(path: Path) -> Iterator[Method]:
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield Method(node, None)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield Method(inner, node)


def _has_tensors(function: ast.FunctionDef) -> bool:
    """Among its arguments, or as its result: one, or several in a tuple or list."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    taken = any(each.annotation and re.search(r"\bTensor\b", ast.unparse(each.annotation)) for each in arguments)
    given = function.returns is not None and re.match(r"((tuple|list)\[)?Tensor\b", ast.unparse(function.returns))
    return taken or bool(given)


def _says(node: ast.FunctionDef | ast.ClassDef | None) -> bool:
    return node is not None and bool(_SHAPE.search(ast.get_docstring(node) or ""))


@cache
def _promised(room: Path) -> frozenset[str]:
    """Methods whose shapes an interface of this room tells (``forward`` is how ``__call__`` is spelled in torch)."""
    found = set()
    for path in room.glob("*.py"):
        for node in _tree(path).body:
            if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases):
                methods = [inner for inner in node.body if isinstance(inner, ast.FunctionDef)]
                found |= {each.name for each in methods if _says(each) or _says(node)}
    return frozenset(found | ({"forward"} if "__call__" in found else set()))


def silent(path: Path) -> list[str]:
    """Public functions that take or give tensors and say no shape; nor does their class, nor their interface."""
    return [
        f"{each.owner.name + '.' if each.owner else ''}{each.function.name}"
        for each in _public(path)
        if _has_tensors(each.function)
        and not (_says(each.function) or _says(each.owner))
        and not (each.owner and each.function.name in _promised(path.parent))
    ]


@pytest.mark.parametrize("room", sorted({path.parent for path in FILES}), ids=lambda room: str(room.relative_to(ROOT)))
def test_who_takes_or_gives_tensors_says_their_shape(room: Path) -> None:
    found = {path.name: silent(path) for path in sorted(room.glob("*.py"))}
    assert {name: functions for name, functions in found.items() if functions} == {}


def test_sections_are_named_alike() -> None:
    found = {}
    for path in FILES:
        nodes = [
            node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)
        ]
        named = {name for node in nodes for name in _SECTION.findall(ast.get_docstring(node) or "")}
        if named - _SECTIONS:
            found[str(path.relative_to(ROOT))] = sorted(named - _SECTIONS)
    assert found == {}


def test_a_silent_function_is_found(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text(
        'class Part(Protocol):\n    def told(self, x: Tensor) -> None:\n        """``x`` (B, C)."""\n\n'
        'class Mine:\n    def told(self, x: Tensor) -> None:\n        """Here."""\n\n'
        '    def untold(self, x: Tensor) -> None:\n        """Something."""\n\n'
        'def also(x: Tensor) -> Tensor:\n    """Of any shape."""\n\ndef plain(x: int) -> int:\n    """A number."""\n\n'
        'def gives() -> tuple[Tensor, int]:\n    """Something."""\n\ndef state() -> dict[str, Tensor]:\n    """A."""\n'
    )
    assert silent(tmp_path / "part.py") == ["Mine.untold", "gives"]
