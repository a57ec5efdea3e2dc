"""Loss curves: rows kept with the checkpoint, written as CSV at the end, streamed to the tracker as they come."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from qartsr.files import write_text

Row = dict[str, float | int | str]
Log = Callable[[dict[str, float], int], None]
"""Receives metrics and a step; training knows nothing of the tracking server."""


class Curves:
    """Rows of a training run. Every ``every``-th step is kept."""

    def __init__(self, log: Log, every: int = 1) -> None:
        self.rows: list[Row] = []
        self.log, self._every = log, every

    def add(self, step: int, losses: Mapping[str, Tensor], **labels: str) -> None:
        """Record one step; ``labels`` become columns of their own (``module``)."""
        if step % self._every:
            return
        values = {name: round(float(value.detach()), 8) for name, value in losses.items()}
        self.rows.append({"step": step, **labels, **values})
        self.log(values, step)

    def write(self, path: Path) -> None:
        """CSV with the union of all columns, in order of appearance."""
        columns = list(dict.fromkeys(column for row in self.rows for column in row)) or ["step"]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(path, text.getvalue())
