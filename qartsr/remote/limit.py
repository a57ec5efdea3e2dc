"""A time limit for a whole exchange: a socket's is for each of its reads, and a server may send a byte now and then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
_SLOWEST, _LONGEST = 64_000, 3600.0
"""Bytes per second that a line is expected to carry at least, and seconds that are granted at most, in addition."""


class TooSlowError(OSError):
    """It was not over in time."""


def within(seconds: float, action: Callable[[], Result], size: int = 0) -> Result:
    """What ``action`` returns or raises; TooSlowError after ``seconds`` and what ``size`` bytes may take.

    It runs in a thread of its own that nobody waits for afterwards, at the program's end neither.
    """
    limit = seconds + min(size / _SLOWEST, _LONGEST)
    results, errors = list[Result](), list[BaseException]()

    def run() -> None:
        try:
            results.append(action())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="qartsr-exchange", daemon=True)
    thread.start()
    thread.join(limit)
    if errors:
        raise errors[0]
    if not results:
        raise TooSlowError(f"it was not over after {limit:.0f} s")
    return results[0]
