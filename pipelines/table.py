"""The results of a run as tables, read from what the stages wrote.

``python -m pipelines.table`` prints them as Markdown; ``python -m pipelines.table README.md`` puts them into a file,
between the lines that begin with ``<!-- results`` and ``<!-- end of results``, so that no figure there is typed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from pipelines.project import read_project
from qartsr.errors import QartsrError
from qartsr.files import read_json, write_text

COLUMNS = ("pictures", "model", "PSNR", "PSNR RGB", "SSIM", "NIQE", "PSNR to FP", "file", "version", "stored at")
_METRICS = {"psnr": 2, "psnr_rgb": 2, "ssim": 4, "niqe": 3, "psnr_to_fp": 2}
_BLOCK = re.compile(r"(?<=\n)(<!-- results[^\n]*-->\n)(.*?)(<!-- end of results[^\n]*-->\n)", re.DOTALL)


class Result(NamedTuple):
    """One row, ready to print; a cell without a value is empty."""

    pictures: str
    """which pictures the means are over, and how many they are"""
    model: str
    psnr: str
    psnr_rgb: str
    ssim: str
    niqe: str
    psnr_to_fp: str
    file: str
    version: str
    uri: str


def results_table(folder: Path) -> list[Result]:
    """Bicubic, fp, then the bit-widths of params.yaml: over all pictures of a data set, then over each of its sets.

    A missing file leaves cells empty. DVC projects other than the pipeline have no such table: no rows.
    """
    subjects = ("bicubic", "fp", *read_project(folder).bits)
    metrics = {subject: _json(folder / "metrics" / f"{subject}.json") for subject in subjects}
    datasets = sorted({dataset for values in metrics.values() for dataset in values})
    return [
        _row(folder, pictures, subject, means.get(subject, {}))
        for dataset in datasets
        for pictures, means in _parts(dataset, {name: metrics[name].get(dataset, {}) for name in subjects})
        for subject in subjects
    ]


def not_measured(folder: Path) -> dict[str, str]:
    """Columns of the table that could not be measured, and why; those of one row where others have it."""
    evaluated, metrics = folder / "build" / "evaluated", folder / "metrics"
    places = {name: evaluated / "reference" / name for name in ("fp", "bicubic")}
    places |= {bits: evaluated / bits for bits in read_project(folder).bits}
    reasons = {subject: _json(place / "unavailable.json") for subject, place in places.items()}
    written = {subject: _json(metrics / f"{subject}.json") for subject in places}
    means = [values for each in written.values() for values in each.values()]
    found: dict[str, str] = {}
    for name in _METRICS:
        for subject in (subject for subject in places if name in reasons[subject]):
            elsewhere = any(name in values for values in means)
            found.setdefault(name.upper() + (f" of {_title(subject)}" if elsewhere else ""), reasons[subject][name])
    return found


def rich_tables(rows: Iterable[Result]) -> list[Table]:
    """For a terminal, one for every group of pictures; addresses are left out, they would be broken into pieces."""
    tables = []
    for pictures, cells in _grouped(rows):
        table = Table(title=f"Means over {pictures}: PSNR in dB, PSNR and SSIM against HR")
        columns = [n for n in _filled(cells) if COLUMNS[n] != "stored at"]
        for n in columns:
            right = COLUMNS[n] not in ("model", "version")
            table.add_column(COLUMNS[n].replace(" ", "\n", 1), justify="right" if right else "left", no_wrap=True)
        for row in cells:
            table.add_row(*(row[n] for n in columns))
        tables.append(table)
    return tables


def markdown(rows: Iterable[Result]) -> str:
    """For a Prefect artifact: every row and column."""
    return _lines(COLUMNS, ["---"] * len(COLUMNS), rows)


def readme(rows: Iterable[Result]) -> str:
    """For people: one table for every group of pictures, without versions and addresses."""
    parts = []
    for pictures, cells in _grouped(rows):
        columns = [n for n in _filled(cells) if COLUMNS[n] not in ("model", "version", "stored at")]
        heads = [f"{COLUMNS[n]}, dB" if COLUMNS[n].startswith("PSNR") else COLUMNS[n] for n in columns]
        named = [[_title(row.model), *(row[n] for n in columns)] for row in cells]
        table = _lines(["", *heads], ["---", *(["--:"] * len(columns))], named)
        parts.append(f"Means over {pictures}:\n\n{table}")
    return "\n\n".join(parts)


def put(file: Path, text: str) -> None:
    """Replace what stands between the two markers of ``file``. Raises QartsrError where it has not exactly one pair."""
    whole = file.read_text(encoding="utf-8") if file.is_file() else ""
    if len(_BLOCK.findall(whole)) != 1:
        what = "needs one line `<!-- results -->` and, below it, one `<!-- end of results -->`"
        raise QartsrError(what, str(file), "mark the place of the table")
    write_text(file, _BLOCK.sub(lambda found: f"{found[1]}\n{text}\n\n{found[3]}", whole))


def _parts(dataset: str, metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Which pictures, and the means over them by subject."""
    sizes = {name: each["pictures"] for values in metrics.values() for name, each in values.get("sets", {}).items()}
    several = len(sizes) > 1
    yield _pictures("all" if several else next(iter(sizes), dataset), sum(sizes.values())), metrics
    for name, size in sizes.items() if several else ():
        yield _pictures(name, size), {s: values.get("sets", {}).get(name, {}) for s, values in metrics.items()}


def _pictures(name: str, count: int) -> str:
    return f"{name}, {count} picture{'s' if count > 1 else ''}" if count else name


def _row(folder: Path, pictures: str, subject: str, values: Mapping[str, float]) -> Result:
    receipt = _json(folder / "build" / "receipts" / f"{subject}.json")
    numbers = (_number(values.get(name), digits) for name, digits in _METRICS.items())
    version = f"v{receipt['version']}" if receipt else ""
    size, uri = _size(_bytes(folder, subject)), receipt.get("uri", "")
    return Result._make([pictures, subject, *numbers, size, version, uri])


def _grouped(rows: Iterable[Result]) -> list[tuple[str, list[Result]]]:
    return [(pictures, list(group)) for pictures, group in groupby(rows, key=lambda row: row.pictures)]


def _filled(rows: Sequence[Result]) -> list[int]:
    """Columns but the first in which any row has a value."""
    return [n for n in range(1, len(COLUMNS)) if any(row[n] for row in rows)]


def _lines(heads: Sequence[str], rule: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("|" + "".join(f" {cell} |" if cell else " |" for cell in line) for line in (heads, rule, *rows))


def _title(subject: str) -> str:
    return subject if subject == "bicubic" else subject.upper()


def _bytes(folder: Path, subject: str) -> int:
    """Size of a package, and of the FP model what the report says; bicubic has none."""
    if subject == "fp":
        return int(_json(folder / "build" / "evaluated" / "reference" / "model.json").get("bytes", 0))
    return sum(path.stat().st_size for path in (folder / "build" / "packages" / subject).rglob("*.safetensors"))


def _json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = read_json(path) if path.is_file() else {}
    return values


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count else ""


def main() -> int:
    """Print the tables, or put them into a file; exit status 1 before the first run."""
    parser = argparse.ArgumentParser("python -m pipelines.table", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="write between the markers of this file instead")
    args = parser.parse_args()
    try:
        rows = results_table(Path.cwd())
        if not rows:
            raise QartsrError("has no results yet", "metrics", "run `make demo` first")
        if args.file:
            put(args.file, readme(rows))
        else:
            print(readme(rows))
    except QartsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
