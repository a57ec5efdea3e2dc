"""Tables as data, and the three files they become: CSV for machines, Markdown for documents, HTML for people."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from qartsr.files import write_text


class Column(NamedTuple):
    """A measured column. ``better``: +1 where higher is better, -1 where lower is, 0 where neither."""

    key: str
    title: str
    digits: int
    better: int = 0


class Value(NamedTuple):
    """Mean over seeds and sample standard deviation; ``spread`` is NaN where there is one number only."""

    mean: float
    spread: float = math.nan

    def text(self, digits: int) -> str:
        """``29.37 ± 0.02``."""
        if math.isnan(self.mean):
            return ""
        return f"{self.mean:.{digits}f}" + ("" if math.isnan(self.spread) else f" ± {self.spread:.{digits}f}")


class Line(NamedTuple):
    """A row of a table: what names it, and its values by column key. Lines of one ``group`` compete."""

    labels: tuple[str, ...]
    values: dict[str, Value]
    group: str = ""
    competes: bool = True
    """whether it may be marked as best (references may not)"""


class Table(NamedTuple):
    """A table with its notes: what was equal, what it shows, and what it does not."""

    title: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def summary(values: Sequence[float]) -> Value:
    """Mean and sample standard deviation."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return Value(mean)
    return Value(mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1)))


def best(lines: Sequence[Line], column: Column) -> set[int]:
    """Places of the best line of every group, and of those tied with it.

    Tied: the means differ by no more than the larger of the two spreads.
    """
    found: set[int] = set()
    if not column.better:
        return found
    for group in {line.group for line in lines}:
        places = [
            n for n, line in enumerate(lines) if line.group == group and line.competes and column.key in line.values
        ]
        if places:
            top = max(places, key=lambda place: column.better * lines[place].values[column.key].mean)
            found |= {place for place in places if tied(lines[place].values[column.key], lines[top].values[column.key])}
    return found


def tied(one: Value, other: Value) -> bool:
    """Whether two means differ by no more than the larger spread."""
    spreads = [value.spread for value in (one, other) if not math.isnan(value.spread)]
    return abs(one.mean - other.mean) <= max(spreads, default=0.0)


def as_csv(table: Table) -> str:
    """Means and spreads in columns of their own, six significant digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = [key for column in table.columns for key in (column.key, f"{column.key}_spread")]
    writer.writerow([*table.labels, *keys])
    for line in table.lines:
        numbers = [number for column in table.columns for number in line.values.get(column.key, Value(math.nan))]
        writer.writerow([*line.labels, *("" if math.isnan(number) else f"{number:.6g}" for number in numbers)])
    return text.getvalue()


def as_markdown(table: Table) -> str:
    """With the best of every group in bold."""
    heads = [*table.labels, *(column.title for column in table.columns)]
    rows = [heads, [":--"] * len(table.labels) + ["--:"] * len(table.columns)]
    for labels, cells in _cells(table):
        rows.append([*labels, *(f"**{text}**" if strong else text for text, strong in cells)])
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"### {table.title}\n\n{body}\n\n" + "".join(f"- {note}\n" for note in table.notes)


def as_html(tables: Sequence[Table], title: str) -> str:
    """One page that needs no other file."""
    body = "".join(_section(table) for table in tables)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{body}</html>\n"
    )


def write_tables(tables: Sequence[Table], title: str, folder: Path, name: str) -> None:
    """``NAME.csv`` (``NAME-2.csv`` ...), ``NAME.md`` and ``NAME.html``."""
    for number, table in enumerate(tables, 1):
        write_text(folder / (f"{name}.csv" if number == 1 else f"{name}-{number}.csv"), as_csv(table))
    write_text(folder / f"{name}.md", "\n".join(as_markdown(table) for table in tables))
    write_text(folder / f"{name}.html", as_html(tables, title))


def _cells(table: Table) -> list[tuple[list[str], list[tuple[str, bool]]]]:
    marked = {column.key: best(table.lines, column) for column in table.columns}
    return [
        (
            list(line.labels),
            [
                (line.values[c.key].text(c.digits) if c.key in line.values else "", place in marked[c.key])
                for c in table.columns
            ],
        )
        for place, line in enumerate(table.lines)
    ]


def _section(table: Table) -> str:
    heads = "".join(f"<th>{html.escape(text)}</th>" for text in (*table.labels, *(c.title for c in table.columns)))
    rows = "".join(
        "<tr>"
        + "".join(f"<th>{html.escape(label)}</th>" for label in labels)
        + "".join(f"<td{' class=best' if strong else ''}>{html.escape(text)}</td>" for text, strong in cells)
        + "</tr>"
        for labels, cells in _cells(table)
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    return f"<h2>{html.escape(table.title)}</h2><table><tr>{heads}</tr>{rows}</table><ul>{notes}</ul>"


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:78rem;padding:0 1rem;color:#1c2029;background:#fff}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;border-bottom:1px solid #dfe2e8;text-align:right;white-space:nowrap}
tr>th{text-align:left;font-weight:500}td.best{font-weight:700}
@media(prefers-color-scheme:dark){body{color:#eceef3;background:#161a21}th,td{border-color:#2c323e}}
"""
