"""The scores of one subject (bicubic, FP, a bit-width) on a test set, and the files that hold them."""

from __future__ import annotations

import csv
import io
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from qartsr.files import write_json, write_text

DIGITS = 6


class Row(NamedTuple):
    """One picture: its name, the set it belongs to, metric -> value."""

    image: str
    set: str
    scores: Mapping[str, float]

    def without(self, names: Container[str]) -> Row:
        """The same without some metrics."""
        return self._replace(scores={name: value for name, value in self.scores.items() if name not in names})


class Scores(NamedTuple):
    """Per-image scores in image order. Every row has the same metrics."""

    dataset: str
    rows: tuple[Row, ...]
    unavailable: Mapping[str, str]
    """metric -> why it could not be measured and how to get it"""
    clips: Mapping[str, Mapping[str, float]] = {}
    """clip -> what is measured over its frames; every clip has the same metrics"""

    def averages(self) -> dict[str, float]:
        """Arithmetic mean over all images, or all clips, of each metric, rounded to 6 decimals."""
        return _means(self.rows) | _means([Row(name, "", scores) for name, scores in self.clips.items()])

    def by_set(self) -> dict[str, dict[str, float]]:
        """Set -> number of its ``pictures``, and their means; of a clip also what is measured over its frames."""
        names = dict.fromkeys(row.set for row in self.rows)
        members = {name: [row for row in self.rows if row.set == name] for name in names}
        return {
            name: {"pictures": len(rows), **_means(rows), **_means([Row("", "", self.clips.get(name, {}))])}
            for name, rows in members.items()
        }

    def tracked(self) -> dict[str, float]:
        """For a tracker: the means over all, and ``SET/METRIC`` where there is more than one set."""
        sets = self.by_set() if len({row.set for row in self.rows}) > 1 else {}
        return self.averages() | {f"{name}/{key}": value for name, each in sets.items() for key, value in each.items()}

    def as_csv(self) -> str:
        """A line per image, maybe none: its name and its scores, rounded to 6 decimals."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", *(self.rows[0].scores if self.rows else ())])
        writer.writerows([row.image, *(round(value, DIGITS) for value in row.scores.values())] for row in self.rows)
        return text.getvalue()

    def shown(self) -> dict[str, float]:
        """The means over all as DVC shows them, one column each: units in the names, as many digits as one compares."""
        return {
            f"{name}_db" if name.startswith("psnr") else name: round(value, 3 if name.startswith("psnr") else 4)
            for name, value in self.averages().items()
        }

    def write(self, folder: Path, metrics: Path, shown: Path) -> None:
        """``per_image.csv`` and ``unavailable.json`` in ``folder``; means as ``metrics``, and ``shown`` to people.

        ``metrics``: {dataset: {metric: mean over all, …, "sets": {set: {"pictures": n, metric: mean over them, …}}}}.
        """
        means: dict[str, Any] = {**self.averages(), "sets": self.by_set()}
        write_text(folder / "per_image.csv", self.as_csv())
        write_json(folder / "unavailable.json", dict(self.unavailable))
        write_json(metrics, {self.dataset: means})
        write_json(shown, self.shown())


def _means(rows: Iterable[Row]) -> dict[str, float]:
    rows = tuple(rows)
    if not rows:
        return {}
    return {name: round(sum(row.scores[name] for row in rows) / len(rows), DIGITS) for name in rows[0].scores}
