"""How often a server that fails is tried again."""

from __future__ import annotations

import logging
from collections.abc import Callable

from qartsr.remote import RefusedError

_FAILURES = 3
"""After so many in a row, whoever would have to wait tries no more."""
_LONGEST = 64.0
"""Longest pause between two attempts in the background, in seconds."""

_log = logging.getLogger("qartsr.tracking")


class Patience:
    """Attempts at one server. Nothing it does raises; the first failure is told in one line, later ones are not."""

    def __init__(self) -> None:
        self._failures, self._warned = 0, False

    def attempt(self, action: Callable[[], object]) -> bool:
        """Do it, unless the server has failed three times in a row; whether it answered."""
        return self._failures < _FAILURES and self.insist(action)

    def insist(self, action: Callable[[], object]) -> bool:
        """Do it in any case; whether the server answered, if only to refuse. That makes up for all failures before."""
        try:
            action()
        except Exception as error:  # whatever it is, it is no reason to lose hours of training
            self._failures = 0 if isinstance(error, RefusedError) else self._failures + 1
            if not self._warned:
                self._warned = True
                _log.warning("MLflow is not told everything: %s", error)
        else:
            self._failures = 0
        return not self._failures

    def pause(self, seconds: float) -> float:
        """``seconds``, doubled for every failure in a row."""
        return min(seconds * 2.0 ** min(self._failures, 10), max(seconds, _LONGEST))
