"""Tables on stdout, and progress on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qartsr.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.table import Table

_UNBOUNDED, _LISTED = 10_000, 5
LINE_SECONDS = 30.0
"""Between two lines about work that goes on, where no terminal shows a bar."""


def say(text: str) -> None:
    """A line on stderr, above the bar if there is one."""
    print(printable(text), file=sys.stderr, flush=True)


def answer(text: str) -> None:
    """A line on stdout."""
    print(printable(text))


def answer_json(value: Any) -> None:
    """JSON on stdout, for people and programs."""
    print("\n".join(map(printable, json.dumps(value, indent=2, ensure_ascii=False).split("\n"))))


def some(names: tuple[str, ...]) -> str:
    """The first few of them."""
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def show(*tables: Table) -> None:
    """Print tables, in a file or a pipe as wide as they are."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _UNBOUNDED, highlight=False)
    for table in tables:
        console.print(table)


class Bar:
    """Shows nothing."""

    def begin(self, name: str) -> None:
        """The next image."""

    def tiles(self, done: int, total: int) -> None:
        """Of the current image."""


class _Drawn(Bar):
    """Images done of a total, and the share done of the current one."""

    def __init__(self, progress: Progress, task: TaskID, images: int) -> None:
        self._progress, self._task, self._images, self._begun = progress, task, images, 0

    def begin(self, name: str) -> None:
        """The next image."""
        self._begun += 1
        title = f"{self._begun}/{self._images} {name}" if self._images > 1 else name
        title = printable(title)
        self._progress.update(self._task, completed=self._begun - 1, description=title, tiles="", rate=self._rate())

    def tiles(self, done: int, total: int) -> None:
        """Of the current image."""
        completed = self._begun - 1 + done / total
        self._progress.update(self._task, completed=completed, tiles=f"tile {done}/{total}", rate=self._rate())

    def _rate(self) -> str:
        """Of images, once there are some."""
        elapsed = self._progress.tasks[0].elapsed or 0.0
        done = self._begun - 1
        if self._images < 2 or not done or not elapsed:
            return ""
        return f"{done / elapsed:.2f} images/s" if done >= elapsed else f"{elapsed / done:.1f} s/image"


class _Told(Bar):
    """Lines of the same, :data:`LINE_SECONDS` apart."""

    def __init__(self, images: int) -> None:
        self._images, self._begun, self._name = images, 0, ""
        self._said, self._first = time.monotonic(), (0.0, 0.0)

    def begin(self, name: str) -> None:
        """The next image."""
        self._begun += 1
        self._name = f"{self._begun}/{self._images} {name}" if self._images > 1 else name

    def tiles(self, done: int, total: int) -> None:
        """Of the current image."""
        now, completed = time.monotonic(), self._begun - 1 + done / total
        if self._begun == 1 and not self._first[1]:
            self._first = (now, completed)  # what an earlier run did took no time of this one
        if now - self._said >= LINE_SECONDS:
            self._said = now
            say(f"{self._name}: tile {done}/{total}{self._rest(now, completed)}")

    def _rest(self, now: float, completed: float) -> str:
        began, at_first = self._first
        if completed <= at_first:
            return ""
        left = round((now - began) / (completed - at_first) * (self._images - completed))
        return f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"


@contextmanager
def bar(images: int, quiet: bool = False) -> Iterator[Bar]:
    """A bar over ``images``, taken away at the end, lines where stderr is no terminal; nothing if ``quiet``."""
    if quiet or not sys.stderr.isatty():
        yield Bar() if quiet else _Told(images)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[tiles]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Drawn(progress, progress.add_task("", total=images, tiles="", rate=""), images)
