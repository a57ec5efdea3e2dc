"""Words become commands; faults become one sentence and an exit status; help costs nothing."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from PIL import Image

from qartsr.cli.command import Command
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


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_number_has_two_ends(command: Command) -> None:
    """A thread or pixel too many is refused at once, not by what runs out of memory later."""
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    words = (None, str, Path)
    numbers = [action for action in parser._actions if action.type not in words and action.dest != "metrics"]
    for action in numbers:
        for text in ("-1", "1" * 19 + "0" * 5, "9" * 5000, "1e9999", "nan", "", "four"):
            with pytest.raises((argparse.ArgumentTypeError, ValueError)):
                assert callable(action.type) and action.type not in (int, float), action.option_strings
                action.type(text)


def test_python_m_is_the_same_and_an_error_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qartsr.cli", "configure", "sample"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "error: configs: has no configurations; run this in the folder of the project.\n"


@pytest.fixture()
def configure(root: Path, tmp_path: Path) -> Callable[[int | IO[str]], tuple[int, str]]:
    """A quick command that prints a line: its exit status and stderr, given where the line goes."""
    (tmp_path / "configs").symlink_to(root / "configs")

    def run(stdout: int | IO[str]) -> tuple[int, str]:
        command = [sys.executable, "-m", "qartsr.cli", "configure", "sample"]
        done = subprocess.run(command, cwd=tmp_path, stdout=stdout, stderr=subprocess.PIPE, text=True)
        return done.returncode, done.stderr

    return run


def test_a_reader_that_has_gone_is_met_with_silence(configure: Callable[[int | IO[str]], tuple[int, str]]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert configure(writer) == (141, "")
    finally:
        os.close(writer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_sentence(configure: Callable[[int | IO[str]], tuple[int, str]]) -> None:
    with Path("/dev/full").open("w") as full:
        status, errors = configure(full)
    assert status == 1 and len(errors.splitlines()) == 1
    assert errors.startswith("error: standard output: No space left on device; ")


def test_what_is_not_installed_is_one_sentence(
    qartsr: Qartsr, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.delitem(sys.modules, "qartsr.config.load", raising=False)
    monkeypatch.delitem(sys.modules, "qartsr.config", raising=False)
    said = qartsr("promote", "w4a4")
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("error: the package yaml: is needed for this command and not installed; install the")
    monkeypatch.setitem(sys.modules, "qartsr.config", None)
    with pytest.raises(ModuleNotFoundError, match=r"qartsr\.config"):
        qartsr("promote", "w4a4")


def test_errors_of_the_system_name_the_path(qartsr: Qartsr, tmp_path: Path) -> None:
    name = "n" * 300  # longer than file systems allow
    said = qartsr("upscale", tmp_path / name, tmp_path / "out.png", "--model", tmp_path)
    assert said.status == 1 and said.out == ""
    assert said.err.startswith(f"error: {tmp_path / name}: File name too long; ")
    assert len(said.err.splitlines()) == 1


def test_a_name_does_nothing_to_a_terminal(qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    name = "a\nerror: b\x1b[2J\x1b]0;title\x07\r\x9b2J\x7f\u202egnp.exe\u2028"  # ends lines, clears, titles, turns
    folder, out = tmp_path / name, tmp_path / f"out {name}"
    folder.mkdir()
    Image.new("RGB", (5, 4)).save(folder / f"{name}.png")
    (folder / f"{name}.2.png").write_bytes(b"")
    (folder / f"{name}.txt").write_text("")
    runs = [
        (1, ("upscale", folder, out, "--model", package, "--json")),
        (1, ("evaluate", "--pred", folder, "--ref", folder, "--metrics", "psnr")),
        (1, ("inspect", folder / name)),
        (1, ("doctor", "--params", folder / name)),
        (2, ("inspect", package, name)),
        (1, ("export", package, folder, "--to", "onnx")),
    ]
    said = [(status, qartsr(*words)) for status, words in runs]
    for status, one in said:
        whole = one.out + one.err
        assert one.status == status and len(whole) > len(name)
        assert all(each.isprintable() for each in whole.split("\n")) and not re.search("^error: b", whole, re.MULTILINE)
    (made,) = [each for each in json.loads(said[0][1].out)["images"] if each["error"] is None]
    assert made["input"] == str(folder / f"{name}.png")


def test_letters_of_every_script_stay(qartsr: Qartsr, tmp_path: Path) -> None:
    name = "\u6f22 \u3000\xa0e\u0301 \u0645\u06cc\u200c\u062e \U0001f468\u200d\U0001f469.png"
    assert name in qartsr("inspect", tmp_path / name).err
