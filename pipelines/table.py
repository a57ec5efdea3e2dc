"""The results of a run in one table, read from what the stages wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from qartsr.config import load_params

COLUMNS = ("data", "model", "PSNR", "SSIM", "PSNR to FP", "file", "version", "stored at")


class Result(NamedTuple):
    """One row, ready to print; a cell without a value is empty."""

    data: str
    model: str
    psnr: str
    ssim: str
    psnr_to_fp: str
    file: str
    version: str
    uri: str


def results_table(folder: Path) -> list[Result]:
    """Rows of every data set: bicubic, fp, then the bit-widths of params.yaml. A missing file leaves cells empty."""
    subjects = ("bicubic", "fp", *load_params(folder / "params.yaml").bits)
    metrics = {subject: _json(folder / "metrics" / f"{subject}.json") for subject in subjects}
    datasets = sorted({dataset for values in metrics.values() for dataset in values})
    return [_row(folder, dataset, name, metrics[name].get(dataset, {})) for dataset in datasets for name in subjects]


def rich_table(rows: Iterable[Result]) -> Table:
    """For a terminal; addresses are left out, they would be broken into pieces."""
    table = Table(title="PSNR in dB and SSIM against HR on the test split")
    for name in COLUMNS[:-1]:
        table.add_column(name, justify="right" if name in COLUMNS[2:6] else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row[:-1])
    return table


def markdown(rows: Iterable[Result]) -> str:
    """For a Prefect artifact."""
    cells = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _row(folder: Path, dataset: str, subject: str, values: Mapping[str, float]) -> Result:
    receipt = _json(folder / "build" / "receipts" / f"{subject}.json")
    return Result(
        dataset,
        subject,
        _number(values.get("psnr"), 2),
        _number(values.get("ssim"), 4),
        _number(values.get("psnr_to_fp"), 2),
        _size(_bytes(folder, subject)),
        f"v{receipt['version']}" if receipt else "",
        receipt.get("uri", ""),
    )


def _bytes(folder: Path, subject: str) -> int:
    """Size of the model's weight files; bicubic has none."""
    home = folder / "build" / ("retrained" if subject == "fp" else f"packages/{subject}")
    return sum(path.stat().st_size for path in home.rglob("*.safetensors"))


def _json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return values


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count else ""
