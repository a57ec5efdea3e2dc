"""The one exception a user sees: what went wrong, where, and what to do about it."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable

_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, ends a line or turns the order of letters: a file's name may hold any of it."""
_USER = re.compile(r"(?i)(\b(?:[a-z][a-z0-9+.-]+:/{2,3}|https?:/))[^\s\"'<>/]*@|(//)[^\s\"'<>/:]*:[^\s\"'<>/]*@")
"""User and password of an address, a mistyped one too, as far as they have no slash."""
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MOST = 1000
"""Characters of a fault that are told, the middle left out: who makes a file decides what is quoted of it."""


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
        fault = _without_middle(printable(what), _MOST)
        super().__init__(printable(f"{where}: {fault}; {do}" + ("" if do.endswith("?") else ".")))

    def __reduce__(self) -> tuple[type[QartsrError], tuple[str, str, str]]:
        return type(self), (self.what, self.where, self.do)


class DivergedError(QartsrError):
    """A training that has left the numbers: whoever tries a learning rate goes on with the next."""


def short(name: object, most: int = 120) -> str:
    """``name`` quoted, its middle left out beyond ``most`` characters: who makes a file decides what is in it."""
    return _without_middle(repr(name), most)


def _without_middle(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"


def printable(text: str) -> str:
    r"""One line that does to a terminal what letters do, without passwords of addresses.

    What would do more is written as ``\n``, ``\r``, ``\t`` or ``\uXXXX``.
    """
    plain = _USER.sub(r"\1\2", text)
    return _UNSHOWN.sub(lambda found: _SHORT.get(found[0], f"\\u{ord(found[0]):04x}"), plain)


def dotted(place: Iterable[object], most: int = 120) -> str:
    """Keys and numbers that lead to a place in a file, as ``layers.3.bits``; on one line whatever the keys are."""
    return printable(".".join(map(str, place))[:most])


def speak_anyhow() -> None:
    """Let what a terminal cannot show, a file's name most of all, be printed escaped instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
