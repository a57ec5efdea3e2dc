"""Whoever installs a built wheel can run a model with it; what is said of dependencies is true of the pins."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qartsr.api import OneStepSRPipeline
from qartsr.export import skeleton
from qartsr.files import read_json, sha256_file
from qartsr.packing import add_graphs, load_package, write_package
from tests.house.project import ROOT, stages
from tests.packing.tiny import quantize, recipe, tiny_model

_TOML = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = _TOML["project"]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_licences_are_those_of_the_pinned_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {canonical(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line and line[0] != "#"}
    listed = csv.DictReader((ROOT / "docs" / "licences.csv").read_text().splitlines())
    found = {canonical(row["Name"]): row["Version"] for row in listed}
    other_pythons = {"async-timeout", "audioop-lts", "whenever"}
    assert {name: found.get(name) for name in pins if name not in other_pythons} == {
        name: version for name, version in pins.items() if name not in other_pythons
    }, "make licences"


def test_every_python_that_is_promised_is_named() -> None:
    named = {each.rpartition(" ")[2] for each in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", each)}
    assert named == {"3.11", "3.12", "3.13"} and PROJECT["requires-python"] == ">=3.11"
    assert "Typing :: Typed" in PROJECT["classifiers"] and (ROOT / "qartsr" / "py.typed").is_file()


def test_the_package_in_the_repository_is_the_one_its_summary_describes() -> None:
    """`make ship` puts it there; whoever clones can try a model of few bits before `make demo`."""
    folder = ROOT / "weights" / "w4a4"
    if not folder.is_dir():
        pytest.skip("no package comes with this checkout: make demo, make ship")
    summary = read_json(folder / "summary.json")
    assert summary["sha256"] == sha256_file(folder / "model.safetensors") and summary["bits"] == "w4a4"
    assert summary["sha256"] in (folder / "README.md").read_text()
    assert OneStepSRPipeline.from_pretrained(folder, engine="simulated")(np.zeros((4, 6, 3), np.uint8)).size == (24, 16)


@pytest.mark.parametrize("image", ["serve", "train"])
def test_an_image_gets_what_it_is_built_of(image: str) -> None:
    """What the Dockerfile copies, the wheel brings and the stages read passes .dockerignore and is copied."""
    lines = re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", (ROOT / f"docker/{image}.Dockerfile").read_text(), re.MULTILINE)
    copied = [ROOT / word for line in lines for word in line.split()]
    patterns = [each for files in _TOML["tool"]["setuptools"]["data-files"].values() for each in files]
    needed = [*copied, *(path for pattern in patterns for path in ROOT.glob(pattern))]
    if image == "train":
        listed = (ROOT / dep for stage in stages("stages").values() for dep in stage.get("deps", []) if "$" not in dep)
        needed += [path for path in listed if path.exists() and "build" not in path.relative_to(ROOT).parts]
    for path in needed:
        assert path.exists(), path
        assert any(path.is_relative_to(source) for source in copied), f"{path}: is not copied"
        assert _sent(path), f"{path}: stays behind, .dockerignore"


def _sent(path: Path) -> bool:
    """Whether the engine gets it: the last pattern of .dockerignore that names it or a folder above it counts."""
    sent, name = True, path.relative_to(ROOT).as_posix()
    for pattern in (ROOT / ".dockerignore").read_text().splitlines():
        bare = pattern.removeprefix("!")
        if bare == "*" or name == bare or name.startswith(f"{bare}/") or bare.startswith(f"{name}/"):
            sent = pattern.startswith("!")
    return sent


@pytest.mark.slow
def test_a_wheel_from_the_sdist_runs_in_an_empty_environment(tmp_path: Path) -> None:
    """Built, installed with the extra [runtime] only: no torch, at most 400 MB, and a picture of the right size."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.is_file():
        pytest.skip("uv, which builds and installs, is not in this environment")
    dist, python = tmp_path / "dist", tmp_path / "empty" / "bin" / "python"
    run(uv, "build", "--no-build-isolation", "--python", sys.executable, "--out-dir", dist, ROOT)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    run(uv, "venv", "--python", sys.executable, tmp_path / "empty")
    run(uv, "pip", "install", "--python", python, f"{wheel}[runtime]", "-c", ROOT / "constraints.txt")
    size = sum(path.lstat().st_size for path in (tmp_path / "empty").rglob("*") if path.is_file())
    assert size < 400e6, f"{size / 1e6:.0f} MB"
    model, package = tiny_model(), tmp_path / "model.safetensors"
    write_package(package, model, quantize(model, "w4a4", recipe()), {})
    add_graphs(package, skeleton(load_package(package)))
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(tmp_path / "in.png")
    run(python.with_name("qartsr"), "upscale", tmp_path / "in.png", tmp_path / "out.png", "--model", package)
    with Image.open(tmp_path / "out.png") as made:
        assert made.size == (24, 20)
    run("env", "-C", tmp_path, python.with_name("qartsr"), "configure", "sample")
    assert (tmp_path / "params.yaml").read_bytes() == (ROOT / "configs" / "sample.yaml").read_bytes()
    absent = "[u.find_spec(name) for name in ('torch', 'diffusers', 'onnx', 'mlflow')]"
    said = run(python, "-c", f"import qartsr, importlib.util as u; print(qartsr.__file__, {absent})")
    assert said.startswith(str(tmp_path / "empty")) and said.strip().endswith("[None, None, None, None]")
    assert sdist.stat().st_size < 40e6


def run(*words: object) -> str:
    """Output of a command outside the repository, with its own packages only."""
    outside = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, env=outside, cwd="/")
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("answers", "taken"), [("docker podman", "docker"), ("podman buildah", "podman"), ("buildah", "buildah"), ("", "")]
)
def test_images_are_built_by_the_first_engine_that_answers(tmp_path: Path, answers: str, taken: str) -> None:
    """A client of docker whose daemon is away builds nothing."""
    for name in ("docker", "podman", "buildah"):
        lines = f"#!/bin/sh\n[ $1 = version ] && exit {int(name not in answers.split())}\necho {name} $*\n"
        (tmp_path / name).write_text(lines)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["make", "images"], cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    said = [line.split()[:3] for line in done.stdout.splitlines() if not line.startswith("make")]
    built = [words for words in said if words[0] in ("docker", "podman", "buildah") and words[1] == "build"]
    assert {words[0] for words in built} == {taken} - {""} and all(
        (w[2] == "--format") == (taken != "docker") for w in built
    )
    assert (done.returncode == 0) == bool(taken) and ("daemon" in done.stderr) == (not taken)
