"""Tables on stdout, and a progress bar on a terminal's stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qartsr.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.table import Table

_UNBOUNDED, _LISTED = 10_000, 5


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


@contextmanager
def bar(images: int, quiet: bool = False) -> Iterator[Bar]:
    """A bar over ``images``, taken away at the end; nothing is drawn where stderr is no terminal, or if ``quiet``."""
    if quiet or not sys.stderr.isatty():
        yield Bar()
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
