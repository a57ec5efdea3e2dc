"""The code that a module runs on, found by reading its imports; nothing is imported for it.

A stage's checkpoint belongs to the code that wrote it, so its place depends on these files. dvc.yaml lists the same
ones (tests/house compares both with the import graph of a third party).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from qartsr.files import sha256_bytes, sha256_file

_ROOT = Path(__file__).resolve().parents[1]
_OURS = ("qartsr.", "stages.", "experiments.")
_NO_RESULT = "qartsr.tracking"
"""Is told what happens, answers nothing and never raises: it changes no result."""


def imported_files(module: str) -> list[str]:
    """Files of this project that ``module`` imports, directly or not, with its own, as paths from the project's root.

    Imports inside functions count, those for type checkers do not. The outermost packages do nothing and do not count.
    """
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is not None and name not in found and not name.startswith(_NO_RESULT):
            found[name] = path.relative_to(_ROOT).as_posix()
            waiting += [name.rpartition(".")[0], *_imports(path.read_bytes())]
    return sorted(found.values())


def code_hash(module: str) -> str:
    """SHA-256 over names and contents of :func:`imported_files`: equal wherever and however often it is asked."""
    lines = [f"{path} {sha256_file(_ROOT / path)}" for path in imported_files(module)]
    return sha256_bytes("\n".join(lines).encode())


def _file(module: str) -> Path | None:
    if not module.startswith(_OURS):
        return None
    path = _ROOT.joinpath(*module.split("."))
    found = [file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()]
    return found[0] if found else None


@cache
def _imports(source: bytes) -> tuple[str, ...]:
    """Names that may be modules: ``from a import b`` may mean ``a.b``. Remembered: stages share most of their code."""
    return tuple(_imported(ast.parse(source)))


def _imported(module: ast.Module) -> Iterator[str]:
    waiting: list[ast.AST] = [module]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)
