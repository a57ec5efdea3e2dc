"""Words become commands; faults become one sentence and an exit status; help costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qartsr.cli.dispatch import COMMANDS
from tests.cli.conftest import Qartsr

HEAVY = ("torch", "diffusers", "numpy", "PIL", "pydantic", "rich", "boto3")
_HELP = """
import json, sys
from qartsr.cli import main
try:
    main(["--help"])
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", _HELP], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(f"    {command.name}" in done.stdout for command in COMMANDS)
    assert not set(HEAVY) & set(json.loads(done.stderr))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help(command: object, qartsr: Qartsr) -> None:
    name = getattr(command, "name")  # noqa: B009
    said = qartsr(name, "--help")
    assert said.status == 0 and said.out.startswith(f"usage: qartsr {name} ")


def test_the_version_is_that_of_the_project(qartsr: Qartsr, root: Path) -> None:
    said = qartsr("--version")
    assert said.status == 0
    name, version = said.out.split()
    assert name == "qartsr" and f'version = "{version}"' in (root / "pyproject.toml").read_text()


@pytest.mark.parametrize("words", [(), ("upscal",), ("upscale", "in.png"), ("inspect", "--tile", "3")])
def test_wrong_usage_is_status_2(words: tuple[str, ...], qartsr: Qartsr) -> None:
    said = qartsr(*words)
    assert said.status == 2 and said.err.startswith("usage: ")


def test_python_m_is_the_same_and_an_error_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qartsr.cli", "configure", "sample"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "error: configs: has no configurations; run this in the folder of the project.\n"


def test_a_reader_that_has_gone_is_met_with_silence(root: Path) -> None:
    done = subprocess.Popen(
        [sys.executable, "-m", "qartsr.cli", "--help"],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.stdout is not None and done.stderr is not None
    done.stdout.close()
    assert done.stderr.read() == ""
    assert done.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "qartsr.cli", "--version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output: No space left on device; ")
    assert len(done.stderr.splitlines()) == 1


def test_errors_of_the_system_name_the_path(qartsr: Qartsr, tmp_path: Path) -> None:
    name = "n" * 300  # longer than file systems allow
    said = qartsr("upscale", tmp_path / name, tmp_path / "out.png", "--model", tmp_path)
    assert said.status == 1 and said.out == ""
    assert said.err.startswith(f"error: {tmp_path / name}: File name too long; ")
    assert len(said.err.splitlines()) == 1
