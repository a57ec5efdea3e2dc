"""What was made of what: JSON lines, one for each image, found through an index on disk.

A line is appended and synced when its output is there, so a crash loses lines at worst, and an image without a line is
made again, to the same name. A torn last line is dropped. Opening compacts: one line for each image, the last, by name.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from qartsr.errors import QartsrError
from qartsr.files import reading, replacing, writing

_SYNC = 1.0
"""Seconds of work that a crash of the machine may cost."""


class Row(NamedTuple):
    """One image."""

    name: str
    output: str
    source: str
    """changes when the input does: an ETag, or size and time"""
    model: str
    """hex SHA-256"""
    options: str
    """what else the output depends on"""
    width: int = 0
    """of the output"""
    height: int = 0
    bytes: int = 0
    sha256: str = ""
    """of the output"""
    seconds: float = 0.0
    error: str | None = None


class Manifest:
    """The rows of a file. For one process: a second one is refused."""

    def __init__(self, path: Path, index: sqlite3.Connection) -> None:
        self.path, self._index = path, index
        self._file = path.open("a", encoding="utf-8")
        self._synced = time.monotonic()

    def add(self, row: Row) -> None:
        """Append a row."""
        with writing(self.path):
            self._file.write(json.dumps(row._asdict(), ensure_ascii=True) + "\n")
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        _insert(self._index, row)

    def find(self, name: str) -> Row | None:
        """The last row of an image."""
        found = self._index.execute("select line from rows where name = ?", (name,)).fetchone()
        return None if found is None else Row(**json.loads(found[0]))

    def there(self, outputs: Iterable[str]) -> None:
        """Say which outputs exist."""
        self._index.execute("create table if not exists there (name text primary key) without rowid")
        self._index.executemany("insert or ignore into there values (?)", ((name,) for name in outputs))

    def exists(self, output: str) -> bool:
        """Whether an output was said to exist."""
        return self._index.execute("select 1 from there where name = ?", (output,)).fetchone() is not None

    def _close(self) -> None:
        self._file.close()
        _write(self.path, self._index)


@contextmanager
def open_manifest(path: Path) -> Iterator[Manifest]:
    """Read, compact and lock. Raises QartsrError for a file that is no manifest, or that another process has."""
    with tempfile.TemporaryDirectory(prefix="qartsr-manifest-") as scratch, _locked(path), _indexed(path):
        index = sqlite3.connect(str(Path(scratch) / "index"), isolation_level=None, check_same_thread=False)
        try:
            index.execute("pragma journal_mode = off")
            index.execute("pragma synchronous = off")
            index.execute("create table rows (name text primary key, line text) without rowid")
            if path.exists():
                _read(path, index)
            _write(path, index)
            manifest = Manifest(path, index)
            try:
                yield manifest
            finally:
                manifest._close()
        finally:
            index.close()


@contextmanager
def _indexed(path: Path) -> Iterator[None]:
    """What SQLite says of a full disk is a QartsrError."""
    try:
        yield
    except sqlite3.Error as error:
        do = f"free some space in {tempfile.gettempdir()}, or name another place with TMPDIR"
        raise QartsrError(f"its index cannot be kept ({error})", str(path), do) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl

    lock = path.with_name(f".{path.name}.lock")
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise QartsrError("is being written by another process", str(path), "wait for it, or end it") from error
        yield


def _read(path: Path, index: sqlite3.Connection) -> None:
    with reading(path), path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break  # torn by a crash: its image is made again
            try:
                row = Row(**json.loads(line))
            except (ValueError, TypeError) as error:
                do = "move it away; images that are there are then made again"
                raise QartsrError(f"line {number} is no row of a manifest", str(path), do) from error
            _insert(index, row)


def _insert(index: sqlite3.Connection, row: Row) -> None:
    line: Any = json.dumps(row._asdict(), ensure_ascii=True)
    index.execute("insert or replace into rows values (?, ?)", (row.name, line))


def _write(path: Path, index: sqlite3.Connection) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for (line,) in index.execute("select line from rows order by name"):
            file.write(line + "\n")
