"""The one exception a user sees: what went wrong, where, and what to do about it."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable


class QartsrError(Exception):
    """A mistake or a condition outside the program, told in one sentence.

    Parameters
    ----------
    what: the fault itself, e.g. ``"the checkpoint is truncated"``.
    where: the file, key, address or stage it concerns.
    do: the next step for the reader, in the imperative, or a question with its mark; no full stop.

    The command line prints ``str(error)`` and exits with status 1.
    """

    def __init__(self, what: str, where: str, do: str) -> None:
        self.what, self.where, self.do = what, where, do
        super().__init__(f"{where}: {what}; {do}" + ("" if do.endswith("?") else "."))

    def __reduce__(self) -> tuple[type[QartsrError], tuple[str, str, str]]:
        return QartsrError, (self.what, self.where, self.do)


def short(name: object, most: int = 120) -> str:
    """``name`` quoted, its middle left out beyond ``most`` characters: who makes a file decides what is in it."""
    text = repr(name)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"


def dotted(place: Iterable[object], most: int = 120) -> str:
    """Keys and numbers that lead to a place in a file, as ``layers.3.bits``; on one line whatever the keys are."""
    text = ".".join(map(str, place))[:most]
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def speak_anyhow() -> None:
    """Let what a terminal cannot show, a file's name most of all, be printed escaped instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
