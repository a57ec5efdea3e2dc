"""What is finished of a large picture, on disk: a run that was killed goes on with the next row of tiles.

The folder holds what tiles share (``moments``) and the rows (``row-N``, 12 bytes a pixel); the names of its files end
with the hash of all they depend on, so another picture or model begins anew, and of two runs at once neither takes the
other's. Where there is no room for it, the picture is made without.
"""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qartsr.errors import QartsrError
from qartsr.files import replacing, sha256_bytes
from qartsr.runtime.moments import Floats, Moments, Statistics

LEAST = 64
"""Tiles of a picture that is worth it: some minutes of two cores."""
_OURS = re.compile(r"(moments|row-\d+)-[0-9a-f]{16}\.npz")
_LOG = logging.getLogger("qartsr")


class Resume(NamedTuple):
    """Where what is finished lies, and what made it."""

    folder: Path
    model: Callable[[], Mapping[str, Any]]
    """gives JSON, to which the picture and the tiles are added; asked only where there is something to keep"""


class Row(NamedTuple):
    """What a row of tiles gives."""

    band: Floats
    """(3, rows, W) final rows of the picture"""
    carried: Floats
    """(3, rows, W) those that the next row of tiles adds to"""


class Unfinished:
    """Finished rows in ``folder``, which belong to ``identity`` (JSON); with ``folder`` None nothing is kept."""

    def __init__(self, folder: Path | None = None, identity: Mapping[str, Any] | None = None) -> None:
        self._folder, self._of = folder, ""
        if folder is None:
            return
        self._of = sha256_bytes(json.dumps(identity, sort_keys=True).encode())[:16]
        with suppress(OSError):
            for file in _files(folder):
                if not file.name.endswith(f"-{self._of}.npz"):
                    file.unlink(missing_ok=True)

    def statistics(self, make: Callable[[], Statistics]) -> Statistics:
        """What an earlier run observed, or ``make()``."""
        found = self._read("moments")
        if found is not None:
            moments = (Moments(mean, square) for mean, square in zip(found["mean"], found["square"], strict=True))
            sizes = found["groups"]
            cut = (Moments(each.mean[:size], each.square[:size]) for each, size in zip(moments, sizes, strict=True))
            return dict(zip((str(name) for name in found["names"]), cut, strict=True))
        made = make()
        sizes = [len(each.mean) for each in made.values()]
        wide = max(sizes, default=0)
        padded = {
            part: [np.pad(getattr(each, part), (0, wide - len(each.mean))) for each in made.values()]
            for part in ("mean", "square")
        }
        self._write("moments", names=np.array(list(made)), groups=np.array(sizes), **padded)
        return made

    def row(self, number: int) -> Row | None:
        """A finished row of tiles, from the top."""
        found = self._read(f"row-{number}")
        return None if found is None else Row(found["band"], found["carried"])

    def add(self, number: int, row: Row) -> None:
        """Keep it."""
        self._write(f"row-{number}", **row._asdict())

    def _read(self, name: str) -> dict[str, Any] | None:
        """None where it is missing or damaged: each array has a checksum."""
        if self._folder is None or not self._file(name).exists():
            return None
        damaged = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
        with suppress(*damaged), np.load(self._file(name), allow_pickle=False) as held:
            return {key: held[key] for key in held.files}
        return None

    def _write(self, name: str, **arrays: Any) -> None:
        if self._folder is None:
            return
        with self._kept(), replacing(self._file(name)) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **arrays)

    def _file(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{name}-{self._of}.npz"

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except (QartsrError, OSError) as error:
            _LOG.warning("%s; a run that is killed from here on begins anew", error)
            if self._folder is not None:
                forget(self._folder)  # what room there is the picture needs
            self._folder = None


def forget(folder: Path) -> None:
    """Remove what was kept there, and the folder where it holds nothing else."""
    with suppress(OSError):
        for file in _files(folder):
            file.unlink(missing_ok=True)
        folder.rmdir()


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.glob("*.npz") if _OURS.fullmatch(file.name)]


def unfinished_of(target: Path) -> Path:
    """The folder for what is written to ``target``."""
    return target.with_name(f"{target.name}.part")
