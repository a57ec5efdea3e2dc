"""What the house tests read: dvc.yaml, the stage files, the import graph."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import Any

import grimp
import yaml

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def stages() -> dict[str, dict[str, Any]]:
    """Stage name -> its definition in dvc.yaml, templates unresolved."""
    definition: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return definition


def outputs(stage: str) -> list[str]:
    """Paths of outs, plots and metrics of a stage."""
    listed = [entry for kind in ("outs", "plots", "metrics") for entry in stages()[stage].get(kind, [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in listed]


def stage_files() -> dict[str, Path]:
    """Stage name -> its file."""
    return {path.stem: path for path in sorted((ROOT / "stages").glob("[a-z]*.py"))}


@functools.cache
def stage_tree(stage: str) -> ast.Module:
    """Syntax tree of a stage's file."""
    return ast.parse((ROOT / "stages" / f"{stage}.py").read_text())


@functools.cache
def _imports() -> grimp.ImportGraph:
    return grimp.build_graph("qartsr", "stages", exclude_type_checking_imports=True, cache_dir=None)


def code_of(stage: str) -> set[str]:
    """Files of code a stage imports, directly or not: ``qartsr/models/store.py`` ...

    Importing ``a.b.c`` runs ``a/b/__init__.py`` as well, so parents count as imported. The two outermost packages do
    nothing (see test_dvc) and do not count. Neither does ``qartsr.tracking``: it is told what happens, answers
    nothing and never raises, so a change of it changes no result and must not retrain a model.
    """
    graph, found, waiting = _imports(), set[str](), [f"stages.{stage}"]
    while waiting:
        module = waiting.pop()
        if module not in found and "." in module and not module.startswith("qartsr.tracking"):
            found.add(module)
            waiting += [*graph.find_modules_directly_imported_by(module), module.rpartition(".")[0]]
    return {_path(module) for module in found}


def _path(module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"
