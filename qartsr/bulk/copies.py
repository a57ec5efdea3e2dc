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

    def fetch(self) -> None:
        """Begin the manifest with what an earlier run left, also one that was ended. Raises PlaceError."""
        found = [name for name in (NAME, *self._names()) if self._target.has(name)]
        if found:
            write_bytes(self._path, b"".join(self._target.read(name) for name in found))

    def begin(self) -> None:
        """Once the manifest is open, and so compact."""
        self._sent = self._path.stat().st_size
        if self._names():
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
        parts = self._names()
        content = self._path.read_bytes()
        self._target.write(NAME, content)
        self._sent, self._parts = len(content), 0
        for name in parts:
            self._target.remove(name)

    def _send(self) -> None:
        if self._parts >= _MOST:
            self.join()
            return
        with self._path.open("rb") as file:
            file.seek(self._sent)
            new = file.read()
        if new:
            self._target.write(f"{NAME}.{self._parts:06}", new)
            self._sent, self._parts = self._sent + len(new), self._parts + 1

    def _names(self) -> list[str]:
        return sorted(name for name in self._target.hidden(f"{NAME}."))
