"""What the house tests read: the files of DVC stages, the stage files, the import graph. Paths are the root's."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from posixpath import normpath, relpath
from typing import Any

import grimp
import yaml

ROOT = Path(__file__).resolve().parents[2]


PIPELINES = {"dvc.yaml": "stages"} | {
    f"experiments/{folder}dvc.yaml": "experiments" for folder in ("", "video/", "dit/")
}  # fmt: skip
"""A file that defines stages -> the package of their code. Names are unique over all."""
CODE = ".py"
"""What dependencies on code end with."""


@functools.cache
def stages(package: str = "") -> dict[str, dict[str, Any]]:
    """Stage name -> its definition, templates unresolved, ``deps`` as paths of the root; of one package, or of all."""
    return {
        name: {**stage, "deps": [from_root(dep, file) for dep in stage["deps"]], "file": file}
        for file, owner in PIPELINES.items()
        if package in ("", owner)
        for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items()
    }


def from_root(path: str, file: str) -> str:
    """A path that stands in the DVC file ``file``, as one of the root."""
    return normpath(f"{Path(file).parent}/{path}")


def from_file(path: str, file: str) -> str:
    """A path of the root as it stands in the DVC file ``file``."""
    return relpath(path, Path(file).parent)


def outputs(stage: str) -> list[str]:
    """Paths of outs, plots and metrics of a stage."""
    found = stages()[stage]
    listed = [entry for kind in ("outs", "plots", "metrics") for entry in found.get(kind, [])]
    return [from_root(entry if isinstance(entry, str) else next(iter(entry)), found["file"]) for entry in listed]


def parameters(stage: str) -> list[str]:
    """Keys of the stage's parameters."""
    keys: list[str] = stages()[stage].get("params", [])
    return keys


def stage_files() -> dict[str, Path]:
    """Stage name -> the file of code that its command runs."""
    return {stage: ROOT / f"{module_of(stage).replace('.', '/')}.py" for stage in stages()}


def module_of(stage: str) -> str:
    """What its command runs: ``stages.retrain`` ..."""
    words: list[str] = stages()[stage]["cmd"].split()
    return words[words.index("-m") + 1]


@functools.cache
def stage_tree(stage: str) -> ast.Module:
    """Syntax tree of a stage's file, with what it imports from helpers of its own pipeline (``_cell.py`` ...)."""
    file = stage_files()[stage]
    tree = ast.parse(file.read_text())
    helpers = [
        node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{file.parent.name}._")
    ]
    parts = [ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text()) for name in helpers if name]
    return ast.Module([*tree.body, *(node for part in parts for node in part.body)], [])


@functools.cache
def _imports() -> grimp.ImportGraph:
    return grimp.build_graph("qartsr", *set(PIPELINES.values()), exclude_type_checking_imports=True, cache_dir=None)


def code_of(stage: str) -> set[str]:
    """Files of code a stage imports, directly or not: ``qartsr/models/store.py`` ...

    Importing ``a.b.c`` runs ``a/b/__init__.py`` as well, so parents count as imported. The outermost packages do
    nothing (see test_dvc) and do not count. Neither does ``qartsr.tracking``: it is told what happens and never raises,
    so a change of it changes no result and must not retrain a model. (The head of the report, which says of which run
    it is, is the exception.)
    """
    graph, found, waiting = _imports(), set[str](), [module_of(stage)]
    while waiting:
        module = waiting.pop()
        if module not in found and "." in module and not module.startswith("qartsr.tracking"):
            found.add(module)
            waiting += [*graph.find_modules_directly_imported_by(module), module.rpartition(".")[0]]
    return {_path(module) for module in found}


def _path(module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"
