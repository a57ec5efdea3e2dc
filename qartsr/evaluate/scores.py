"""The scores of one subject (bicubic, FP, a bit-width) on a test set, and the files that hold them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from qartsr.files import write_json, write_text

DIGITS = 6


class Row(NamedTuple):
    """One picture: its name, the set it belongs to, metric -> value."""

    image: str
    set: str
    scores: Mapping[str, float]
    missing: Mapping[str, str] = {}
    """metric -> why the picture has no such score"""


class Scores(NamedTuple):
    """Per-image scores in image order; a picture may lack some (:attr:`Row.missing`)."""

    dataset: str
    rows: tuple[Row, ...]
    unavailable: Mapping[str, str]
    """metric -> why it could not be measured and how to get it"""
    clips: Mapping[str, Mapping[str, float]] = {}
    """clip -> what is measured over its frames"""

    def metrics(self) -> tuple[str, ...]:
        """What any image has, those of the image that has most first."""
        return _names(self.rows)

    def averages(self, some: bool = False) -> dict[str, float]:
        """Arithmetic mean over all images, or all clips, of each metric, rounded to 6 decimals.

        A metric that one of them lacks has no mean, or, with ``some``, the mean over those that have it.
        """
        return _means(self.rows, some) | _means([Row(name, "", scores) for name, scores in self.clips.items()], some)

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
        """A line per image, maybe none: its name and its scores, rounded to 6 decimals; empty where it has none."""
        text, names = io.StringIO(), self.metrics()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", *names])
        for row in self.rows:
            writer.writerow([row.image, *(round(row.scores[n], DIGITS) if n in row.scores else "" for n in names)])
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


def _names(rows: Iterable[Row]) -> tuple[str, ...]:
    """Of all metrics, those of the picture that has most first: one that lacks some does not reorder them."""
    fullest = sorted(rows, key=lambda row: -len(row.scores))
    return tuple(dict.fromkeys(name for row in fullest for name in row.scores))


def _means(rows: Iterable[Row], some: bool = False) -> dict[str, float]:
    rows = tuple(rows)
    values = {name: [row.scores[name] for row in rows if name in row.scores] for name in _names(rows)}
    return {n: round(sum(each) / len(each), DIGITS) for n, each in values.items() if some or len(each) == len(rows)}
