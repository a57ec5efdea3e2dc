"""Which run the page is of: the commit, when it ended, and how long its stages took."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from qartsr.evaluate.report.inputs import Inputs
from qartsr.files import read_object


class About(NamedTuple):
    """Words for the head of the page; empty where nothing is known."""

    commit: str
    date: str
    took: str


def about(inputs: Inputs) -> About:
    """By what stages noted when they ended on this machine; results of others DVC may have taken from its cache."""
    notes = [read_object(file, "stage", "seconds", "ended") for file in sorted(inputs.times.glob("*.json"))]
    notes = [note for note in notes if _of_this_run(str(note["stage"]), inputs)]
    if not notes:
        return About(inputs.commit, "", "")
    ended = max(datetime.fromisoformat(note["ended"]) for note in notes)
    longest = max(notes, key=lambda note: float(note["seconds"]))
    total = sum(float(note["seconds"]) for note in notes)
    most = f"{span(float(longest['seconds']))} ({longest['stage']})"
    took = f"{len(notes)} stages took {span(total)} in all, the longest {most}"
    return About(inputs.commit, f"{ended.day} {ended:%B %Y, %H:%M} UTC", took)


def _of_this_run(stage: str, inputs: Inputs) -> bool:
    bits = stage.partition("@")[2]
    return stage != "report" and (not bits or bits in inputs.bits)


def span(seconds: float) -> str:
    """Two units at most: ``48 s``, ``21 min 36 s``, ``3 h 4 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"
