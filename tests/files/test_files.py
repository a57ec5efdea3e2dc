"""Write-then-rename: the old file or the new one, never half a file."""

from __future__ import annotations

import getpass
import os
import pwd
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

from qartsr.errors import QartsrError
from qartsr.files import (
    cache_folder,
    home_for_servers,
    home_for_the_hub,
    read_json,
    read_object,
    replacing,
    replacing_folder,
    scratch_beside,
    sha256_tree,
    write_json,
    write_text,
)


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_sentence() -> None:
    with pytest.raises(QartsrError, match="disk space"):
        write_text(Path("/dev/full/x"), "data")


def test_json_is_sorted_and_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": 2})
    write_json(tmp_path / "b", {"a": 2, "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_json(tmp_path / "a") == {"a": 2, "b": 1}


def test_tree_hash_sees_names_and_contents(tmp_path: Path) -> None:
    write_text(tmp_path / "d" / "x", "1")
    first = sha256_tree(tmp_path / "d")
    write_text(tmp_path / "d" / "x", "2")
    assert sha256_tree(tmp_path / "d") != first
    (tmp_path / "d" / "x").rename(tmp_path / "d" / "y")
    write_text(tmp_path / "d" / "y", "1")
    assert sha256_tree(tmp_path / "d") != first


def test_long_names_and_names_in_no_encoding(tmp_path: Path) -> None:
    for name in ("n" * 255, os.fsdecode(b"latin1_\xe9")):
        write_json(tmp_path / name, {"name": name})
        assert read_json(tmp_path / name) == {"name": name}
    with pytest.raises(QartsrError, match="choose a shorter name"):
        write_json(tmp_path / ("n" * 256), {})
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cache_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "qartsr"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("HF_HOME", "")
    monkeypatch.delenv("HF_HOME")  # so that it is gone again afterwards
    home_for_the_hub()
    assert "HF_HOME" not in os.environ
    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder().parent == Path(tempfile.gettempdir())
    home_for_the_hub()
    assert Path(os.environ["HF_HOME"]) == cache_folder() / "huggingface"


@pytest.mark.parametrize("home", [None, "/nowhere"])
def test_servers_without_a_home_or_a_name(home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Prefect and DVC ask for is there, for this process and its children."""

    def nameless(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "there")
    monkeypatch.setenv("HOME", str(tmp_path / ".."))
    home_for_servers()
    assert os.environ["HOME"] == str(tmp_path / "..") and os.environ["LOGNAME"] == "there", "they stay"
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name)
    if home:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(pwd, "getpwuid", nameless)
    home_for_servers()
    assert Path.home() == tmp_path / "qartsr" and Path.home().is_dir()
    assert getpass.getuser() == f"user{os.getuid()}"
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setattr(os, "getuid", lambda: Path.cwd().stat().st_uid + 1)
    with pytest.raises(QartsrError, match=r"another user's, and no home for this one"):
        home_for_servers()
    assert os.environ["HOME"] == "/nowhere"


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    """That of a process that is gone, when it is old enough to be nobody's on another machine either."""
    path, gone = tmp_path / "receipt.json", 2**22 + 1
    mine = scratch_beside(path)
    left = mine.with_name(mine.name.replace(f".{os.getpid()}.", f".{gone}."))
    folder = left.with_name(left.name.replace(".tmp", "1.tmp"))
    fresh = left.with_name(left.name.replace(".tmp", "2.tmp"))
    for each in (left, fresh):
        each.write_text("half")
    folder.mkdir()
    for each in (left, folder):
        os.utime(each, (0, 0))
    write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, fresh])


def test_scratch_files_are_nothing_to_dvc(tmp_path: Path, root: Path) -> None:
    """Else what a killed publish leaves among the receipts makes the report stale for good."""
    patterns = (root / ".dvcignore").read_text().split()
    assert any(fnmatch(scratch_beside(tmp_path / "w4a4.json").name, pattern) for pattern in patterns)


def test_names_that_cannot_be(tmp_path: Path) -> None:
    for name in ("a\0b", "x" * 300):
        for act in (lambda p: write_text(p, "x"), sha256_tree, read_object, lambda p: _folder(p)):
            with pytest.raises(QartsrError) as caught:
                act(tmp_path / name)
            assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def _folder(path: Path) -> None:
    with replacing_folder(path) as temporary:
        (temporary / "x").write_text("x")


def test_an_object_is_asked_for(tmp_path: Path) -> None:
    for text in ("[]", "null", "3", '"x"', "[" * 100_000, "{}"):
        write_text(tmp_path / "f", text)
        with pytest.raises(QartsrError, match=r"no object|is not JSON|has no 'name'"):
            read_object(tmp_path / "f", "name")
