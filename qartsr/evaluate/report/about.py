"""Which run the page is of: the commit, when it ended, and how long its stages took."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from qartsr.errors import QartsrError
from qartsr.evaluate.report.inputs import Inputs
from qartsr.files import read_object


class About(NamedTuple):
    """Words for the head of the page; empty where nothing is known."""

    commit: str
    date: str
    took: str


def about(inputs: Inputs) -> About:
    """By what stages noted when they ended on this machine; results of others DVC may have taken from its cache."""
    files = sorted(inputs.times.glob("*.json")) if inputs.times else []
    notes = [note for file in files if (note := _note(file)) and _of_this_run(note.stage, inputs)]
    if not notes:
        return About(inputs.commit, "", "")
    ended = max(note.ended for note in notes)
    longest = max(notes, key=lambda note: note.seconds)
    most = f"{span(longest.seconds)} ({longest.stage})"
    took = (
        f"{len(notes)} stages took {span(sum(note.seconds for note in notes))} when last run here, the longest {most}"
    )
    return About(inputs.commit, f"{ended.day} {ended:%B %Y, %H:%M} UTC", took)


class _Note(NamedTuple):
    stage: str
    seconds: float
    ended: datetime


def _note(file: Path) -> _Note | None:
    """None where a kill, or somebody, left it unreadable: the page can do without."""
    with suppress(QartsrError, ValueError, TypeError, OverflowError):
        values = read_object(file, "stage", "seconds", "ended")
        seconds = float(values["seconds"])
        if math.isfinite(seconds):
            return _Note(str(values["stage"]), seconds, datetime.fromisoformat(values["ended"]).astimezone(UTC))
    return None


def _of_this_run(stage: str, inputs: Inputs) -> bool:
    bits = stage.partition("@")[2]
    return stage != "report" and (not bits or bits in inputs.bits)


def span(seconds: float) -> str:
    """Two units at most: ``48 s``, ``21 min 36 s``, ``3 h 4 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"
