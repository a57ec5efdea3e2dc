"""The manifest's copy in a bucket: its new lines go there as parts, now and then, so that another machine can go on."""

from __future__ import annotations

import time
from pathlib import Path

from qartsr.bulk.place import Place, PlaceError
from qartsr.files import write_bytes

NAME = ".qartsr-manifest.jsonl"
"""Of the manifest, in the output; hidden, so never an image. Of its parts the beginning."""
_EVERY, _MOST = 20.0, 200
"""Seconds between two parts; parts until they are joined."""


class Copies:
    """In ``target``, of the manifest ``path``, which grows by whole lines."""

    def __init__(self, target: Place, path: Path) -> None:
        self._target, self._path = target, path
        self._sent, self._last, self._parts, self._said = 0, time.monotonic(), 0, ""
        self._run = f"{time.time_ns():020}"  # parts of two runs have different names
        self.fetched = False

    def fetch(self) -> None:
        """Add to the manifest what earlier runs left there, also on other machines. Raises PlaceError.

        Of an image that both know the copy's line counts: an old one here would take another machine's work for its
        own. Until this has succeeded nothing that lies there is replaced.
        """
        found = [name for name in (NAME, *self._names()) if self._target.has(name)]
        there = b"".join(self._target.read(name) for name in found)
        if there:
            here = self._path.read_bytes() if self._path.exists() else b""
            write_bytes(self._path, here[: here.rfind(b"\n") + 1] + there)
        self.fetched = True

    def begin(self) -> None:
        """Once the manifest is open, and so compact."""
        self._sent = self._path.stat().st_size
        if self.fetched and self._names():
            self.join()

    def go_on(self) -> str:
        """Send what is new, when it is time; why it cannot be, if it was not said before."""
        if time.monotonic() - self._last < _EVERY:
            return ""
        self._last = time.monotonic()
        try:
            self._send()
        except PlaceError as error:  # the next time, then; the images come first
            said, self._said = self._said, str(error)
            return "" if said else self._said
        return ""

    def join(self) -> None:
        """Put the whole manifest there, and away with the parts. Raises PlaceError."""
        if not self.fetched:
            self.fetch()
        parts = self._names()
        content = self._path.read_bytes()
        self._target.write(NAME, content)
        self._sent, self._parts = len(content), 0
        for name in parts:
            self._target.remove(name)

    def _send(self) -> None:
        if self._parts >= _MOST and self.fetched:
            self.join()
            return
        with self._path.open("rb") as file:
            file.seek(self._sent)
            new = file.read()
        if new:
            self._target.write(f"{NAME}.{self._run}-{self._parts:06}", new)
            self._sent, self._parts = self._sent + len(new), self._parts + 1

    def _names(self) -> list[str]:
        return sorted(name for name in self._target.hidden(f"{NAME}."))
