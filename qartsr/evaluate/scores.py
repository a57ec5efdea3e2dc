"""The scores of one subject (bicubic, FP, a bit-width) on a test set, and the files that hold them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from qartsr.files import write_json, write_text

DIGITS = 6


class Scores(NamedTuple):
    """Per-image scores in image order. Every row has the same metrics."""

    dataset: str
    rows: tuple[tuple[str, Mapping[str, float]], ...]
    unavailable: Mapping[str, str]
    """metric -> why it could not be measured and how to get it"""

    def averages(self) -> dict[str, float]:
        """Arithmetic mean over images of each metric, rounded to 6 decimals."""
        names = list(self.rows[0][1])
        return {name: round(sum(row[name] for _, row in self.rows) / len(self.rows), DIGITS) for name in names}

    def as_csv(self) -> str:
        """A line per image: its name and its scores, rounded to 6 decimals."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", *self.rows[0][1]])
        writer.writerows([name, *(round(value, DIGITS) for value in row.values())] for name, row in self.rows)
        return text.getvalue()

    def write(self, folder: Path, metrics: Path) -> None:
        """``per_image.csv`` and ``unavailable.json`` in ``folder``; averages as {dataset: {metric: value}}."""
        write_text(folder / "per_image.csv", self.as_csv())
        write_json(folder / "unavailable.json", dict(self.unavailable))
        write_json(metrics, {self.dataset: self.averages()})
