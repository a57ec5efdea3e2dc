"""The dvc.yaml files agree with their params.yaml, with the stage files and with what they import."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from pipelines.project import read_project
from qartsr.code_files import imported_files
from qartsr.config import load_config, load_params
from qartsr.config.experiment import Experiments
from qartsr.errors import QartsrError
from tests.house.deps import with_code
from tests.house.project import (
    CODE,
    PIPELINES,
    ROOT,
    code_of,
    module_of,
    outputs,
    parameters,
    stage_files,
    stage_tree,
    stages,
)

IN_GIT = ("weights/sample", "weights/sample-dit", "weights/sample-video", "photographs", "photographs/clips")
CONFIGS = [ROOT / "params.yaml", *sorted((ROOT / "configs").glob("*.yaml"))]


def test_every_stage_has_its_file_and_every_file_its_stage() -> None:
    kept = {path for package in PIPELINES.values() for path in (ROOT / package).glob("[a-z]*.py")}
    assert set(stage_files().values()) == kept


@pytest.mark.parametrize("stage", stages())
def test_a_stage_says_what_it_does(stage: str) -> None:
    assert len(stages()[stage]["desc"]) > 20


@pytest.mark.parametrize("stage", stages())
def test_deps_cover_the_code_a_stage_imports(stage: str) -> None:
    """File by file, as imported; a checkpoint's place depends on the same files."""
    listed = [dep for dep in stages()[stage]["deps"] if dep.endswith(CODE)]
    needed = code_of(stage)
    difference = f"missing {sorted(needed - set(listed))}, idle {sorted(set(listed) - needed)}"
    assert listed == sorted(needed), f"{difference}: run `make deps` (python -m tests.house.deps)"
    assert imported_files(module_of(stage)) == sorted(needed)


def test_the_lists_are_written_by_the_command() -> None:
    """It changes nothing that is current, mends what is not, and leaves all else as it stands."""
    for name in PIPELINES:
        text = (ROOT / name).read_text()
        assert with_code(text, name) == text, "run `make deps` (python -m tests.house.deps)"
        old = re.sub(r"      - (\.\./)*qartsr/(files|models/.*)\.py\n", "", text)
        old = re.sub(r"(      - .*)stages/_stage\.py\n", r"\1qartsr/gone.py\n\g<0>", old)
        assert "gone" in old and "models/" not in old and with_code(old, name) == text


@pytest.mark.parametrize("file", ["quantizers/gptq.py", "training/rpq.py", "training/et.py", "config/experiment.py"])
def test_long_trainings_are_stale_for_their_own_reasons(file: str) -> None:
    """Their result does not depend on how, or with what, something is quantized later."""
    assert (ROOT / "qartsr" / file).is_file()
    for stage in ("data", "calibrate", "retrain"):
        assert f"qartsr/{file}" not in stages()[stage]["deps"]


@pytest.mark.parametrize("stage", stages())
def test_data_deps_are_outputs_of_other_stages(stage: str) -> None:
    made = {path for other in stages() if other != stage for path in outputs(other)}
    for dep in stages()[stage]["deps"]:
        if not dep.endswith(CODE):
            assert any(_made(path, dep) for path in made) or dep in IN_GIT, dep


@pytest.mark.parametrize("stage", stages())
def test_command_line_is_what_the_stage_file_accepts(stage: str) -> None:
    command: str = stages()[stage]["cmd"]
    package = stage_files()[stage].parent.name
    assert command.startswith(f"${{python}} -m {package}.")
    declared = _declared_arguments(stage_tree(stage)) | ({"--params"} if package != "stages" else set())
    assert set(re.findall(r"--[a-z-]+", command)) == declared


@pytest.mark.parametrize("stage", stages())
def test_command_line_names_the_data_deps_and_the_outputs(stage: str) -> None:
    words = stages()[stage]["cmd"].split()
    data = [
        dep for dep in stages()[stage]["deps"] if not dep.endswith(CODE) and not dep.startswith("photographs")
    ]  # by name
    assert set(data + outputs(stage)) <= set(words)


@pytest.mark.parametrize("file", [*PIPELINES, "weights/recipe/dvc.yaml"])
def test_commands_find_the_interpreter_in_a_plain_shell(file: str, tmp_path: Path) -> None:
    """That of DVC, else .venv's, else one on PATH: the first with the libraries. The shell's parent stands for DVC."""
    here = tmp_path / "a root" / Path(file).parent
    here.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "stages", tmp_path / "a root" / "stages")
    command = next(iter(yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["vars"][0].values()))
    places = (tmp_path / "elsewhere/bin/python3.12", tmp_path / "a root/.venv/bin/python", tmp_path / "path/python3")
    caller, _, on_path = (_interpreter(place, True) for place in places)
    relative = os.path.relpath(caller, here)  # DVC itself stays where it was called, when its command goes elsewhere
    argv = [relative, "-c", 'sh -c "$1 -m x"; exit $?', "sh", command]
    said = subprocess.run(argv, executable="/bin/sh", cwd=here, env={"PATH": "/usr/bin:/bin"}, capture_output=True)
    assert Path(said.stdout.decode().removesuffix(" -m x\n")).resolve() == caller.resolve()
    for place in (*places, None):
        argv = [str(caller), "-c", f"{command} -m x; exit $?"]
        plain = {"PATH": f"{on_path.parent}:/usr/bin:/bin"}
        said = subprocess.run(argv, executable="/bin/sh", cwd=here, env=plain, capture_output=True, text=True)
        if place is None:
            assert said.returncode == 1 and said.stderr.startswith("error: no Python on this machine has what")
            assert len(said.stderr.splitlines()) == 1 and "`make venv`" in said.stderr
        else:
            assert (said.stdout, said.stderr) == (f"{place} -m x\n", "")
            _interpreter(place, False)


def _interpreter(place: Path, whole: bool) -> Path:
    """It says its name; ``whole``: it says that it has the libraries."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then exit {0 if whole else 1}; fi\necho "$0" "$@"\n')
    place.chmod(0o755)
    return place


@pytest.mark.parametrize("folder", ["experiments", "weights/recipe"])
def test_what_is_not_the_pipeline_is_a_project_of_its_own(folder: str) -> None:
    """So DVC's status, pull, metrics and plots in the root speak of the pipeline alone."""
    assert (ROOT / folder / ".dvc" / "config").is_file()
    assert read_project(ROOT / folder).name == Path(folder).name and not read_project(ROOT / folder).bits


def test_a_slip_in_the_pipelines_parameters_is_not_another_project(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("\nmethod:", "\nmethods:")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(QartsrError, match=r"params\.yaml: method: is missing"):
        read_project(tmp_path)


def test_no_stage_is_frozen() -> None:
    """DVC wants every dependency of a frozen stage to be there, and a fresh clone has only what git holds."""
    assert not [name for name, stage in stages().items() if stage.get("frozen")]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
@pytest.mark.parametrize("stage", stages("stages"))
def test_params_of_a_stage_exist(stage: str, config: Path) -> None:
    values = yaml.safe_load(config.read_text())
    for bits in values["bits"]:
        for key in parameters(stage):
            _look_up(values, key.replace("${item.bits}", bits))


@pytest.mark.parametrize("stage", stages("experiments"))
def test_params_of_an_experiment_exist(stage: str) -> None:
    values = yaml.safe_load((ROOT / stages()[stage]["file"]).with_name("params.yaml").read_text())
    for method in (*values["tables"]["table3"], *values["tables"].get("table4", ())):
        for key in parameters(stage):
            _look_up(values, key.replace("${item.method}", method))


@pytest.mark.parametrize("stage", stages())
def test_params_of_a_stage_are_what_it_reads(stage: str) -> None:
    """A value that is read but not listed makes results stale unseen; one listed but not read makes them stale idly."""
    listed = {re.sub(r"\.\$\{item\.\w+\}$", "", key) for key in parameters(stage)}
    read = _params_read(stage_tree(stage))
    assert not {key for key in read if not _covered(key, listed)}, "read but not listed"
    assert not {key for key in listed if not any(_covered(key, {r}) or _covered(r, {key}) for r in read)}, "never read"


def test_packages_that_are_no_dependency_do_nothing() -> None:
    """What stands in qartsr/__init__.py waits for somebody outside to ask for a name; no code of ours does."""
    for package in set(PIPELINES.values()):
        assert _only_docstring(ast.parse((ROOT / package / "__init__.py").read_text()).body)
    lazy = "import qartsr, sys; sys.exit(any(name.startswith('qartsr.') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", lazy], cwd=ROOT).returncode == 0
    graph = grimp.build_graph("qartsr", *set(PIPELINES.values()), "pipelines", cache_dir=None)
    assert not graph.find_modules_that_directly_import("qartsr")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_are_valid(config: Path) -> None:
    load_params(config)


def test_the_experiments_are_valid() -> None:
    load_config(Experiments, ROOT / "experiments" / "params.yaml")


def test_params_are_the_sample_profile() -> None:
    assert load_params(ROOT / "params.yaml") == load_params(ROOT / "configs" / "sample.yaml")


def test_metrics_are_cached() -> None:
    """An uncached metric would make every other machine run the evaluation again. A receipt is no function of its
    inputs alone, so it must not come out of a cache."""
    uncached = {
        stage
        for stage, definition in stages().items()
        for kind in ("outs", "plots", "metrics")
        for entry in definition.get(kind, [])
        if isinstance(entry, dict) and next(iter(entry.values())).get("cache") is False
    }
    assert uncached == {"publish"}


def _only_docstring(body: list[ast.stmt]) -> bool:
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def _made(path: str, dep: str) -> bool:
    """A template stands for any name: ``a/${item.method}-${item.bits}`` makes ``a/qartsr-${item.bits}``."""
    pattern = re.sub(r"\\\$\\\{item\\\.\w+\\\}", r"[^/]+", re.escape(path))
    return re.fullmatch(pattern, dep) is not None or path.startswith(f"{dep}/")


def _look_up(values: Any, key: str) -> None:
    for part in key.split("."):
        assert part in values, f"{key} is not in params.yaml"
        values = values[part]


def _covered(key: str, keys: set[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in keys)


def _declared_arguments(tree: ast.Module) -> set[str]:
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "arguments"
    ]
    assert len(calls) == 1, "a stage calls arguments() once"
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    words = [
        constants[arg.value.id] if isinstance(arg, ast.Starred) and isinstance(arg.value, ast.Name) else arg
        for arg in calls[0].args[1:]
    ]
    names = {node.value for word in words for node in ast.walk(word) if isinstance(node, ast.Constant)}
    return names | {f"--{keyword.arg}" for keyword in calls[0].keywords}


def _params_read(tree: ast.Module) -> set[str]:
    """``params.retrain.loss`` -> ``retrain.loss``. Left out: compute (how, not what) and the label of a tracked run."""
    labels = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open_run"
        for child in ast.walk(node.args[0])
    }
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}  # what they read is seen here too
    handed_on = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in own
        for argument in node.args
    }
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    read = set()
    for node in ast.walk(tree):  # params.methods["maxmin"] reads one entry
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            section = ast.unparse(node.value)
            if section.startswith("params."):
                inner.add(id(node.value))
                read.add(f"{section.removeprefix('params.')}.{node.slice.value}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner | labels:
            chain = ast.unparse(node)
            if re.fullmatch(r"params(\.\w+)+", chain):
                read.add(re.sub(r"\.model_dump$", "", chain).removeprefix("params."))
        whole = isinstance(node, ast.Name) and node.id == "params" and isinstance(node.ctx, ast.Load)
        assert not whole or id(node) in inner | handed_on, (
            "pass a section of params, not all of it: DVC cannot see what is read"
        )
    return {key for key in read if key.split(".")[0] != "compute"}
