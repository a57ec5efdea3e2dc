"""Photographs out of Debian packages: a real package, made here, handed out by a stand-in for the archive."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qartsr.data.wallpapers import write_wallpapers
from qartsr.errors import QartsrError
from qartsr.files import read_json, sha256_file

FILE = "usr/share/backgrounds/hill.png"


@pytest.fixture()
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of one picture, its package in a folder that ``apt-get download`` copies from."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not on this machine; Debian and Ubuntu have it")
    content, archive, tools = tmp_path / "content", tmp_path / "archive", tmp_path / "tools"
    for folder in (content / "DEBIAN", (content / FILE).parent, archive, tools):
        folder.mkdir(parents=True)
    Image.linear_gradient("L").convert("RGB").save(content / FILE)
    facts = "Package: hills\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: a hill\n"
    (content / "DEBIAN" / "control").write_text(facts)
    subprocess.run(["dpkg-deb", "--build", content, archive / "hills_1_all.deb"], check=True, capture_output=True)
    (tools / "apt-get").write_text(f"#!/bin/sh\ncp {archive}/*.deb .\n")
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    entry = {"name": "hill", "split": "test", "package": "hills", "file": FILE, "reduce": 2}
    return _write(tmp_path, {**entry, "sha256": sha256_file(content / FILE), "licence": "CC0", "credit": "nobody"})


def _write(folder: Path, entry: dict[str, Any]) -> Path:
    (folder / "table.json").write_text(json.dumps([entry]))
    return folder / "table.json"


def test_a_picture_is_taken_out_shrunk_and_recorded(table: Path, tmp_path: Path) -> None:
    manifest = write_wallpapers(table, tmp_path / "out")
    entry = manifest["test"][0]
    assert (entry["name"], entry["width"], entry["height"], entry["licence"]) == ("hill", 128, 128, "CC0")
    for key, side in (("hr", 128), ("lr", 32)):
        with Image.open(tmp_path / "out" / entry[key]) as image:
            assert image.size == (side, side)
        assert sha256_file(tmp_path / "out" / entry[key]) == entry[f"sha256_{key}"]
    assert len(manifest["train"]) == 12  # those of the wheels
    assert read_json(tmp_path / "out" / "manifest.json") == manifest


def test_another_file_is_refused_and_nothing_is_left(table: Path, tmp_path: Path) -> None:
    entry = read_json(table)[0]
    with pytest.raises(QartsrError, match="is not the file that was used"):
        write_wallpapers(_write(tmp_path, {**entry, "sha256": "0" * 64}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_machine_without_debians_tools_is_told(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(QartsrError, match="apt-get is missing"):
        write_wallpapers(table, tmp_path / "out")
