"""Where images come from and go to: a folder, or ``s3://bucket/prefix``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from qartsr.errors import QartsrError
from qartsr.files import reading, write_bytes, writing
from qartsr.remote import Store, open_store

S3 = "s3://"
_PAUSES = (1.0, 4.0, 16.0)
"""Seconds before what failed is tried again."""
Result = TypeVar("Result")


class PlaceError(QartsrError):
    """A place does not answer, or has no room: no fault of the image."""


class Place(Protocol):
    """Names below it are relative, with slashes."""

    address: str

    def names(self) -> Iterator[tuple[str, str]]:
        """Every file's name, and what changes when its content does. Hidden ones are left out."""
        ...

    def read(self, name: str) -> bytes:
        """Its bytes. Raises PlaceError."""
        ...

    def has(self, name: str) -> bool:
        """Whether it is there."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Make or replace it; it appears whole or not at all. Raises PlaceError."""
        ...

    def hidden(self, beginning: str) -> list[str]:
        """Names at the top that begin so, hidden ones too."""
        ...

    def remove(self, name: str) -> None:
        """Away with it, if it is there. Raises PlaceError."""
        ...


class Folder:
    """On a file system."""

    def __init__(self, path: Path) -> None:
        self._path, self.address = path, str(path)

    def names(self) -> Iterator[tuple[str, str]]:
        """One folder's names at a time."""
        return self._below("")

    def _below(self, inner: str) -> Iterator[tuple[str, str]]:
        folder = self._path / inner
        if not inner and not folder.exists():
            return  # an output that is made with its first image
        with reading(folder):
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._below(f"{inner}{entry.name}/")
            elif entry.is_file():
                look = entry.stat()
                yield f"{inner}{entry.name}", f"{look.st_size}-{look.st_mtime_ns}"

    def read(self, name: str) -> bytes:
        """The file's bytes."""
        return _patiently(lambda: self._bytes(name))

    def _bytes(self, name: str) -> bytes:
        with reading(self._path / name):
            return (self._path / name).read_bytes()

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._path / name).is_file()

    def write(self, name: str, data: bytes) -> None:
        """The file, by a rename."""
        _patiently(lambda: write_bytes(self._path / name, data))

    def hidden(self, beginning: str) -> list[str]:
        """Of files."""
        return [path.name for path in self._path.glob(f"{beginning}*")]

    def remove(self, name: str) -> None:
        """The file."""
        with writing(self._path / name):
            (self._path / name).unlink(missing_ok=True)


class Bucket:
    """In an S3 store; the environment says where that is."""

    def __init__(self, address: str) -> None:
        bucket, _, prefix = address.removeprefix(S3).partition("/")
        if not bucket:
            raise QartsrError("names no bucket", address, "write s3://BUCKET/PREFIX/")
        self._bucket, self._prefix = bucket, prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
        self.address, self._stores = f"{S3}{bucket}/{self._prefix}", list[Store]()

    def _store(self) -> Store:
        """Opened when it is used, and in each process that uses it."""
        if not self._stores:
            self._stores.append(open_store())
            self._stores[0].demand(self._bucket)
        return self._stores[0]

    def __reduce__(self) -> tuple[type[Bucket], tuple[str]]:
        return Bucket, (self.address,)

    def names(self) -> Iterator[tuple[str, str]]:
        """A thousand at a time."""
        for key, etag in self._store().listed(self._bucket, self._prefix):
            name = key.removeprefix(self._prefix)
            if name and not any(part.startswith(".") for part in name.split("/")) and not name.endswith("/"):
                yield name, etag

    def read(self, name: str) -> bytes:
        """The object's bytes."""
        return _patiently(lambda: self._store().read(self._bucket, self._prefix + name))

    def has(self, name: str) -> bool:
        """Whether there is such an object."""
        key = self._prefix + name
        return any(found == key for found in self._keys(key))

    def write(self, name: str, data: bytes) -> None:
        """The object."""
        _patiently(lambda: self._store().write(data, self._bucket, self._prefix + name))

    def hidden(self, beginning: str) -> list[str]:
        """Of objects."""
        return [key.removeprefix(self._prefix) for key in self._keys(self._prefix + beginning)]

    def _keys(self, beginning: str) -> list[str]:
        return _patiently(lambda: [key for key, _ in self._store().listed(self._bucket, beginning)])

    def remove(self, name: str) -> None:
        """The object."""
        _patiently(lambda: self._store().remove(self._bucket, self._prefix + name))


def _patiently(action: Callable[[], Result]) -> Result:
    for pause in (*_PAUSES, None):
        try:
            return action()
        except QartsrError as error:
            if pause is None:
                raise PlaceError(error.what, error.where, error.do) from error
            time.sleep(pause)
    raise AssertionError


def open_place(word: str) -> Place:
    """A folder, or ``s3://bucket/prefix``. Raises QartsrError for an address without a bucket.

    The folder's path is made absolute: processes of a cluster work elsewhere.
    """
    return Bucket(word) if word.startswith(S3) else Folder(Path(word).absolute())
