"""``python -m tests.chaos --seconds 3600 --seed 1``: every kind of fault in turn, and a table of what came of it."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from random import Random
from types import FrameType
from typing import NamedTuple

from tests.chaos.commands import COMMANDS, site
from tests.chaos.damage import IN_PROCESS, Trial
from tests.chaos.forked import FORKED, KILLS, commands, one_more, stages
from tests.chaos.served import SERVED, server, told
from tests.chaos.services import SERVICES, services
from tests.chaos.stages import PER_SEED, STAGES, one_more_each

_HANG = int(os.environ.get("QARTSR_CHAOS_HANG", "600"))
"""Seconds after which a trial counts as hanging; QARTSR_CHAOS_HANG on a machine that is busy."""

_READY: dict[str, Callable[[int], object]] = {
    **dict.fromkeys(COMMANDS, lambda number: site()),
    **dict.fromkeys(SERVICES, lambda number: services()),
    **dict.fromkeys(SERVED, lambda number: server()),
    **dict.fromkeys(STAGES, one_more_each),
    **dict.fromkeys(FORKED, lambda number: one_more(stages(), number)),
    "forked commands, kill -9": lambda number: one_more(commands(), number),
    "forked publish, promote, fetch, rollback, kill -9": lambda number: services(),
}
"""What is made before the trial with a number, where it is not there yet, and is no part of its time."""


class Finding(NamedTuple):
    """What came of one kind."""

    tried: int = 0
    failed: int = 0
    longest: float = 0.0
    """seconds"""
    memory: int = 0
    """peak of this process, and of the largest child, in MB"""


def attempt(kind: str, trial: Trial, seed: int) -> tuple[float, str]:
    """Seconds, and why it failed; what it needs may take three times as long as the trial itself."""

    def hang(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {_HANG} s, or {3 * _HANG} s for what it needs")

    before, begun, why = signal.signal(signal.SIGALRM, hang), time.monotonic(), ""
    signal.alarm(3 * _HANG)
    try:
        _READY.get(kind, int)(seed)
        begun = time.monotonic()
        signal.alarm(_HANG)
        with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()):
            trial(Random(f"{kind} {seed}"), Path(folder))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        why = "".join(traceback.format_exception(error)[-3:])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return time.monotonic() - begun, why


def campaign(kinds: dict[str, Trial], seconds: float, seed: int, first: int = 0) -> dict[str, Finding]:
    """Every kind for an equal share of the time, from trial ``first``; what failed is told with its number."""
    found = {}
    for kind, trial in kinds.items():
        end, tally, number = time.monotonic() + seconds / len(kinds), Finding(), seed * PER_SEED + first
        try:
            while time.monotonic() < end or not tally.tried:
                took, why = attempt(kind, trial, number)
                if why:
                    print(f"FAILED {kind}, --only {kind!r} --repeat {number}\n{why}", file=sys.stderr, flush=True)
                tally = Finding(tally.tried + 1, tally.failed + bool(why), max(tally.longest, took), _peak())
                number += 1
        finally:  # of a campaign that Ctrl-C ends as well
            found[kind] = tally
            row = f"| {kind} | {tally.tried:,} | {tally.failed} | {tally.longest:.1f} s | {tally.memory} MB |"
            print(row, flush=True)
    if KILLS:
        print(
            "kills:", ", ".join(f"{name} {count}" for name, count in KILLS.most_common()), file=sys.stderr, flush=True
        )
    if said := told():
        print(said, file=sys.stderr, flush=True)
    return found


def _peak() -> int:
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024


def main() -> None:
    """Exit status 1 when anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="KIND", default="", help="kinds whose name holds this")
    parser.add_argument("--first", type=int, default=0, help="trial to begin with; 10: with all stages from the start")
    parser.add_argument("--repeat", metavar="N", type=int, help="the one trial with this number")
    args = parser.parse_args()
    every = IN_PROCESS | SERVED | SERVICES | FORKED | COMMANDS | STAGES
    kinds = {kind: trial for kind, trial in every.items() if args.only in kind}
    if args.repeat is not None:
        for kind, trial in kinds.items():
            print(kind, *attempt(kind, trial, args.repeat))
        return
    print("| kind | tried | failed | longest | peak memory so far |\n| --- | --: | --: | --: | --: |", flush=True)
    with suppress(KeyboardInterrupt):
        sys.exit(any(each.failed for each in campaign(kinds, args.seconds, args.seed, args.first).values()))


if __name__ == "__main__":
    main()
