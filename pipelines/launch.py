"""How a stage's command is started: on this machine, or through a scheduler; and how a lost machine is told."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

LOST = "Lost"
"""Name of the state of a stage that did not fail but was killed, or whose node failed."""
_KILLED = re.compile(r"exited with (-(?!2\b)\d+|1(29|3[1-9]|[4-9]\d))\b")
_INTERRUPTED = 130
_NODE = re.compile(r"node failure|NODE_FAIL|task \d+.*: (Killed|Terminated)", re.IGNORECASE)


class Options(NamedTuple):
    """What a flow run tells all its stages."""

    launcher: Mapping[str, str]
    """``compute.launcher``"""
    share: bool = False
    """whether outputs may come from the DVC remote"""

    def prefix(self, stage: str) -> list[str]:
        """The words before the command of ``stage``: those of the longest pattern that matches it, else none."""
        base = stage.rpartition(":")[2].split("@")[0]
        pattern = max((each for each in self.launcher if fnmatchcase(base, each)), key=len, default="")
        return [word.replace("{name}", stage.replace("/", "-")) for word in shlex.split(self.launcher.get(pattern, ""))]


def lost(status: int, log: Sequence[str]) -> bool:
    """Whether an exit status or the last lines of a stage say that a signal ended it or that its node failed."""
    return (128 < status < 255 and status != _INTERRUPTED) or any(
        _KILLED.search(line) or _NODE.search(line) for line in log
    )
