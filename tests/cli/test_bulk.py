"""Very many images: what is due, what a crash costs, and that nothing is done twice."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qartsr.bulk import NAME, Alone, Bulk, Copies, Row, Tally, copies, open_manifest, open_place, upscale_bulk
from qartsr.bulk import place as places
from qartsr.bulk.place import PlaceError
from qartsr.errors import QartsrError
from qartsr.files import sha256_file
from qartsr.images import Picture
from qartsr.remote import open_store
from tests.cli.conftest import Qartsr
from tests.conftest import ROOT
from tests.pipelines.alive import until

RNG = np.random.default_rng(0)


class Fake:
    """In the place of a pipeline."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: Picture) -> Picture:
        self.calls += 1
        return Picture.of(image.resize((image.width * 4, image.height * 4)), {})


def pictures(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (2, 3, 3), np.uint8)).save(folder / name)
    return folder


def bulk(source: Path, target: Path, **options: Any) -> Bulk:
    return Bulk(open_place(str(source)), open_place(str(target)), **options)


def work(asked: Bulk, path: Path, model: str = "m1", identity: str = "") -> Tally:
    with open_manifest(path) as manifest:
        engine = Alone(asked, Fake())  # type: ignore[arg-type]
        return upscale_bulk(asked, manifest, engine, model, lambda row: None, identity)


def rows(path: Path) -> list[Row]:
    return [Row(**json.loads(line)) for line in path.read_text().splitlines()]


def test_what_is_there_by_the_same_model_is_not_made_again(tmp_path: Path) -> None:
    names = ("a.png", "sub/b.bmp", *(f"many/{number:02}.png" for number in range(9)))
    source, log = pictures(tmp_path / "in", *names), tmp_path / "log.jsonl"
    (source / "notes.txt").write_text("no image")
    (source / "broken.png").write_bytes(b"no image either")
    asked = bulk(source, tmp_path / "out", suffix="_x4")
    assert work(asked, log) == Tally(11, 1, 0)
    assert sorted(row.name for row in rows(log) if row.error is None) == sorted(names)
    (made,) = (row for row in rows(log) if row.name == "sub/b.bmp")
    assert (made.output, made.width, made.height, made.model) == ("sub/b_x4.png", 12, 8, "m1")
    assert "broken.png: cannot be read as PNG" in next(row.error or "" for row in rows(log) if row.error)
    assert work(asked, log) == Tally(0, 1, 11), "what failed is tried again"
    (tmp_path / "out" / "a_x4.png").unlink()
    pictures(source, "many/03.png", "new.png")
    os.utime(source / "many/03.png", (1, 1))
    assert work(asked, log) == Tally(3, 1, 9), "gone, changed, new"
    assert work(asked, log, "m2") == Tally(12, 1, 0) and work(asked, log, "m2", "other tiles") == Tally(12, 1, 0)
    assert [row.name for row in rows(log)] == sorted({row.name for row in rows(log)}), "one row each, by name"


def test_a_torn_line_costs_one_image_and_damage_is_told(tmp_path: Path) -> None:
    source, log = pictures(tmp_path / "in", "a.png", "b.png"), tmp_path / "log.jsonl"
    asked = bulk(source, tmp_path / "out")
    work(asked, log)
    log.write_bytes(log.read_bytes()[:-5])
    assert work(asked, log) == Tally(1, 0, 1)
    with open_manifest(log), pytest.raises(QartsrError, match="is being written by another process"):
        work(asked, log)
    log.write_text('{"name": 3}\n')
    with pytest.raises(QartsrError, match=r"log\.jsonl: line 1 is no row of a manifest; move it away"):
        work(asked, log)


def test_no_room_for_the_index_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As found with RLIMIT_FSIZE: SQLite has an error of its own for a full disk."""
    asked = bulk(pictures(tmp_path / "in", "a.png"), tmp_path / "out")

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("qartsr.bulk.manifest._insert", full)
    with pytest.raises(QartsrError, match=r"log: its index cannot be kept \(disk I/O error\); free some space in"):
        work(asked, tmp_path / "log")


def test_a_place_is_tried_again_and_given_up_when_it_fails_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_PAUSES", (0.0, 0.0, 0.0))
    source, log = pictures(tmp_path / "in", *(f"{n}.png" for n in range(8))), tmp_path / "log.jsonl"
    asked = bulk(source, tmp_path / "out")
    reading, calls = places.Folder._bytes, list[str]()

    def flaky(self: Any, name: str) -> bytes:
        calls.append(name)
        if calls.count(name) < 3 or name == "2.png":
            raise QartsrError("does not answer", name, "try again")
        return reading(self, name)

    monkeypatch.setattr(places.Folder, "_bytes", flaky)
    assert work(asked, log) == Tally(7, 1, 0) and calls.count("2.png") == 4
    monkeypatch.setattr(places.Folder, "_bytes", lambda self, name: flaky(self, "2.png"))
    with pytest.raises(PlaceError, match="does not answer"):
        work(asked, log, "m2")
    assert len(rows(log)) == 8, "nothing is lost"


def test_the_copy_loses_no_line_of_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A older cache here, newer lines there, and a place that does not answer at first."""

    def line(name: str, model: str) -> str:
        return json.dumps(Row(name, name, "1", model, "")._asdict()) + "\n"

    there, here = tmp_path / "there", tmp_path / "here.jsonl"
    there.mkdir()
    here.write_text(line("a", "old") + line("b", "old") + '{"torn')
    whole, part = there / copies.NAME, there / f"{copies.NAME}.0-000000"
    whole.write_text(line("a", "new"))
    part.write_text(line("c", "new"))
    copy = Copies(open_place(str(there)), here)

    def silent(self: Any, name: str) -> bytes:
        raise PlaceError("does not answer", name, "try again")

    with monkeypatch.context() as patch:
        patch.setattr(places.Folder, "read", silent)
        with pytest.raises(PlaceError):
            copy.fetch()
        copy.begin()
    assert whole.read_text() == line("a", "new") and part.exists(), "what was not read is not replaced"
    copy.join()
    with open_manifest(here):
        pass
    assert {row.name: row.model for row in rows(here)} == {"a": "new", "b": "old", "c": "new"}
    assert not part.exists() and whole.read_text().count("\n") == 4


@pytest.mark.long
def test_a_killed_run_is_finished_by_the_next(package: Path, tmp_path: Path, qartsr: Qartsr) -> None:
    source = pictures(tmp_path / "in", *(f"{n:03}.png" for n in range(24)))
    words = ["upscale", source, tmp_path / "out", "--model", package, "--engine", "simulated", "--manifest"]
    log = tmp_path / "log.jsonl"
    command = [sys.executable, "-m", "qartsr.cli", *map(str, words), str(log)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        assert until(lambda: log.exists() and log.read_bytes().count(b"\n") >= 3, 120)
        process.send_signal(signal.SIGKILL)
    before = log.read_bytes().count(b"\n")
    assert 3 <= before < 24
    said = qartsr(*words, log, "--json")
    assert said.status == 0 and json.loads(said.out) == {
        "made": 24 - before, "failed": 0, "skipped": before, "manifest": str(log),
    }  # fmt: skip
    assert [row.name for row in rows(log)] == [f"{n:03}.png" for n in range(24)]
    for row in rows(log):
        assert sha256_file(tmp_path / "out" / row.output) == row.sha256


@pytest.mark.long
@pytest.mark.services
def test_from_bucket_to_bucket(
    servers: dict[str, str],
    package: Path,
    qartsr: Qartsr,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store, root = open_store(), uuid.uuid4().hex
    folder = pictures(tmp_path / "in", "a.png", "deep/b.png")
    for name in ("a.png", "deep/b.png"):
        store.write((folder / name).read_bytes(), "qartsr", f"{root}/in/{name}")
    ends = [f"s3://qartsr/{root}/in/", f"s3://qartsr/{root}/out"]
    words = ["upscale", *ends, "--model", package, "--engine", "simulated"]
    assert "2 made, 0 there already, 0 failed" in qartsr(*words).err
    found = [key for key, _ in store.listed("qartsr", f"{root}/out/")]
    assert found == [f"{root}/out/{name}" for name in (NAME, "a.png", "deep/b.png")]
    for cache in ("cache", "elsewhere"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        assert "0 made, 2 there already" in qartsr(*words).err, "another machine knows it from the bucket"
    assert "there is no bucket" in qartsr("upscale", "s3://nobody/", ends[1], "--model", package).err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["s3://b/in", "s3://b/in2", "s3://b/out"], "takes one folder or s3:// prefix to another"),
        (["s3://b/in", "s3://b/in/out"], "is in the input, or the input in it"),
        (["nowhere", "s3://b/out"], "nowhere: is not a folder"),
        (["s3:///in", "s3://b/out"], "names no bucket"),
        (["in.png", "out.png", "--manifest", "log"], "in.png: is not a folder"),
    ],
)
def test_what_cannot_be_is_said_at_once(words: list[str], sentence: str, package: Path, qartsr: Qartsr) -> None:
    said = qartsr("upscale", *words, "--model", package)
    assert said.status == 1 and sentence in said.err
