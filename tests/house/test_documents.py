"""What the documents promise exists; what no text may contain is nowhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from qartsr.cli import dispatch
from tests.house.project import ROOT, stages

DOCUMENTS = sorted(path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MAX_BYTES = 600_000


def _commands(path: Path) -> list[str]:
    """Lines of fenced shell blocks and inline code that look like our commands."""
    text = path.read_text()
    fenced = "\n".join(re.findall(r"```(?:sh|bash|shell|console|text)?\n(.*?)```", text, re.DOTALL))
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines = [*fenced.splitlines(), *inline]
    lines = [line.split(" #")[0].strip().removeprefix("$ ").removeprefix(".venv/bin/") for line in lines]
    return [line for line in lines if re.match(r"(make|python -m|dvc repro|qartsr) ", line)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in _commands(path):
        words = command.split()
        if words[0] == "make":
            named = [word for word in words[1:] if re.fullmatch(r"[a-z-]+", word)][:1]
            assert set(named) <= targets, command
        elif words[0] == "python":
            assert importlib.util.find_spec(words[2]) is not None, command
        elif words[0] == "dvc":
            named = [word.split("@")[0] for word in words[2:] if re.fullmatch(r"[a-z]+(@\w+)?", word)]
            assert set(named) <= set(stages()), command


def _spoken(path: Path) -> list[list[str]]:
    """Words of commands in fenced blocks that call `qartsr`, without what is the shell's."""
    blocks = re.findall(r"^```(?:sh|bash|shell|console|text)?\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        plain = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
        if plain.startswith("qartsr ") and "..." not in plain:
            words = shlex.split(plain, comments=True)
            end = next((place for place, word in enumerate(words) if word in ("|", "<", ">", "&", "&&", ";")), None)
            found.append(words[1:end])
    return found


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if _spoken(path)], ids=lambda path: path.name)
def test_commands_are_what_the_command_line_takes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in _spoken(path):
        try:
            dispatch._parsed(words)
        except SystemExit as ended:
            assert ended.code == 0, f"{' '.join(words)}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_of_a_clone_name_its_environment(path: Path) -> None:
    """A shell, a service or a scheduler finds no ``dvc`` on PATH; ``qartsr`` may be installed elsewhere."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    ours = r"(?:dvc|prefect|python3? -m (?:pipelines|qartsr|stages|tests))"
    bare = re.compile(rf"^(?:.*(?:&& |; ))?{ours}\b.*", re.MULTILINE)
    assert not [line for block in blocks for line in bare.findall(block)]


def test_there_is_a_readme_and_it_says_how_to_test() -> None:
    """Its lines are pasted into shells (zsh, csh) that take a comment for words of the command."""
    commands = _commands(ROOT / "README.md")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert not [block for kind, block in blocks if not kind and re.search(r"\S +# ", block)]
    assert any(command.startswith("make demo") for command in commands)
    assert any(command.startswith("make test") for command in commands)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if "://" not in link and not link.startswith("mailto:"):
            assert (path.parent / link).exists(), link


def test_files_in_git_are_small() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git repository")
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and not name.startswith("weights/"):
            assert path.stat().st_size <= MAX_BYTES, name
