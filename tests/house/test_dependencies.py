"""pyproject.toml and constraints.txt: a core install stays small, everything imported is declared, pins are plain."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_packages

from tests.house.project import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_IN_CORE = {
    "boto3", "botocore", "dvc", "dvc-s3", "fastapi-cli", "lpips", "mlflow", "mlflow-skinny", "prefect", "pyiqa",
    "pytest", "swift",
}  # fmt: skip
TORCHLESS_ROOMS = ("api", "artifact", "cli", "errors", "files", "images", "release", "remote", "runtime")
"""What the extra [runtime] runs, with qartsr.upscale but for what hands over to torch."""
TORCH_IN_UPSCALE = {"modules.py", "osediff.py", "official"}
CORE_ROOMS = (
    "cli",
    "upscale",
    "api",
    "engines",
    "packing",
    "quantize",
    "layer",
    "models",
    "metrics",
    "quantizers",
    "transforms",
    "branches",
    "release",
    "remote",
    "tracking",
)
OWN = {"qartsr", "stages", "experiments", "pipelines", "tests"}


def _pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def _requirements(extra: str = "") -> list[Requirement]:
    listed = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return [Requirement(line) for line in listed]


def _everything_needed(requirements: Iterable[Requirement]) -> set[str]:
    """Names of all distributions that ``requirements`` bring, followed through the installed metadata."""
    names: set[str] = set()
    waiting = [(requirement, "") for requirement in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (requirement.marker and not requirement.marker.evaluate({"extra": extra})) or name in names:
            continue
        names.add(name)
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another platform
            continue
        waiting += [(Requirement(line), extra) for line in needed for extra in (requirement.extras or {""})]
    return names


def test_a_core_install_brings_no_pipeline() -> None:
    assert not _everything_needed(_requirements()) & NOT_IN_CORE


def test_the_walk_through_the_metadata_finds_something() -> None:
    """The test above must not pass because the walk sees nothing."""
    assert {"dvc", "prefect", "mlflow", "dvc-data", "alembic"} <= _everything_needed(_requirements("pipeline"))


@pytest.mark.parametrize("room", CORE_ROOMS)
def test_core_rooms_load_with_core_dependencies(room: str) -> None:
    """Imports at the top of a file need no extra but [torch]; those inside functions may."""
    _demand_declared(_files(ROOT / "qartsr" / room), [*_requirements(), *_requirements("torch")])


@pytest.mark.parametrize("room", [*TORCHLESS_ROOMS, "upscale"])
def test_what_runs_without_torch_needs_no_extra_to_load(room: str) -> None:
    files = [path for path in _files(ROOT / "qartsr" / room) if not TORCH_IN_UPSCALE & {*path.parts}]
    _demand_declared(files, _requirements())


def test_the_runtime_is_without_torch() -> None:
    needed = _everything_needed([*_requirements(), *_requirements("runtime")])
    assert "openvino" in needed and not needed & {"torch", "diffusers", "transformers", "triton", *NOT_IN_CORE}


def _demand_declared(files: Iterable[Path], requirements: Iterable[Requirement]) -> None:
    declared = {canonicalize_name(requirement.name) for requirement in requirements}
    for path in files:
        undeclared = _distributions(_top_level_imports(path)) - declared
        assert not undeclared, f"{path.relative_to(ROOT)} imports {undeclared}"


@pytest.mark.parametrize("package", ["qartsr", "stages", "experiments", "pipelines"])
def test_everything_imported_is_declared(package: str) -> None:
    extras = [_requirements(extra) for extra in PROJECT["optional-dependencies"]]
    declared = {canonicalize_name(requirement.name) for group in [_requirements(), *extras] for requirement in group}
    for path in _files(ROOT / package):
        undeclared = _distributions(_imports(ast.walk(ast.parse(path.read_text())))) - declared
        assert not undeclared, f"{path.relative_to(ROOT)} imports {undeclared}"


def test_the_wheel_has_what_runs_models_and_pipelines_and_nothing_of_a_checkout() -> None:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    packages = set(find_packages(str(ROOT), include=found["include"], exclude=found["exclude"]))
    assert {"qartsr", "qartsr.cli", "qartsr.upscale", "stages", "pipelines"} <= packages
    assert not {name for name in packages if name.startswith(("experiments", "qartsr.services", "tests"))}


@pytest.mark.parametrize("package", ["qartsr", "stages", "pipelines"])
def test_what_is_in_the_wheel_imports_nothing_that_is_not(package: str) -> None:
    left_out = ("experiments", "qartsr.services")
    for path in _files(ROOT / package):
        if not path.is_relative_to(ROOT / "qartsr" / "services"):
            tree = ast.walk(ast.parse(path.read_text()))
            modules = [node.module for node in tree if isinstance(node, ast.ImportFrom) and node.module]
            assert not [module for module in modules if module.startswith(left_out)], path


def test_constraints_are_plain_pins() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.+!]*", line), line
    assert "://" not in (ROOT / "constraints.txt").read_text()


def test_constraints_satisfy_the_requirements() -> None:
    pins = {canonicalize_name(name): version for name, version in _pins().items()}
    for group in ["", *PROJECT["optional-dependencies"]]:
        for requirement in _requirements(group):
            if canonicalize_name(requirement.name) != "qartsr":
                pinned = pins[canonicalize_name(requirement.name)]
                assert requirement.specifier.contains(pinned), f"{requirement} is pinned to {pinned}"


def test_older_torch_is_allowed_without_constraints() -> None:
    (torch,) = [requirement for requirement in _requirements("torch") if requirement.name == "torch"]
    assert torch.specifier.contains("2.11.0") and torch.specifier.contains("3.0")


def _files(room: Path) -> list[Path]:
    return sorted(room.rglob("*.py")) or [room.with_suffix(".py")]


def _top_level_imports(path: Path) -> set[str]:
    return _imports(ast.parse(path.read_text()).body)


def _imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Outermost names of absolute imports that are neither ours nor the standard library's."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names - OWN - set(sys.stdlib_module_names)


def _distributions(imported: set[str]) -> set[str]:
    """Distributions that may provide the imported names, the shortest name of each (mlflow is in mlflow-skinny too)."""
    found = set()
    for name in imported:
        candidates = {canonicalize_name(candidate) for candidate in _providers().get(name, [name])}
        found.add(min(candidates, key=len))
    return found


@functools.cache
def _providers() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()
