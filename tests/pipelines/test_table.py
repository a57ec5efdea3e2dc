"""The table of results, from files as the stages write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.table import COLUMNS, markdown, results_table, rich_table


@pytest.fixture()
def run(tmp_path: Path, root: Path) -> Path:
    """A finished run: bicubic, FP and w4a4; nothing of w3a3 and w2a2 but their place in params.yaml."""
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    _write(tmp_path / "metrics/bicubic.json", {"photographs": {"psnr": 24.0, "ssim": 0.7, "psnr_to_fp": 28.5}})
    _write(tmp_path / "metrics/fp.json", {"photographs": {"psnr": 25.126, "ssim": 0.76543}})
    _write(tmp_path / "metrics/w4a4.json", {"photographs": {"psnr": 25.0, "ssim": 0.75, "psnr_to_fp": 38.211}})
    _write(tmp_path / "metrics/retrain.json", {"t1": {"psnr_fp": 25.0}})
    _write(tmp_path / "build/receipts/w4a4.json", {"model": "qartsr-sample-w4a4", "version": 3, "uri": "s3://qartsr/x"})
    for name, size in {"retrained/unet": 3_000_000, "retrained/vae": 1_000_000, "packages/w4a4": 800_000}.items():
        folder = tmp_path / "build" / name
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes(size))
    return tmp_path


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def test_rows_and_cells(run: Path) -> None:
    assert [tuple(row) for row in results_table(run)] == [
        ("photographs", "bicubic", "24.00", "0.7000", "28.50", "", "", ""),
        ("photographs", "fp", "25.13", "0.7654", "", "4.00 MB", "", ""),
        ("photographs", "w4a4", "25.00", "0.7500", "38.21", "0.80 MB", "v3", "s3://qartsr/x"),
        ("photographs", "w3a3", "", "", "", "", "", ""),
        ("photographs", "w2a2", "", "", "", "", "", ""),
    ]


def test_markdown_has_a_line_per_row(run: Path) -> None:
    lines = markdown(results_table(run)).splitlines()
    assert len(lines) == 2 + 5
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 1}


def test_terminal_table_fits_eighty_columns(run: Path) -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(rich_table(results_table(run)))
    assert "…" not in capture.get() and "25.13" in capture.get()


def test_before_the_first_run_the_table_is_empty(tmp_path: Path, root: Path) -> None:
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    assert results_table(tmp_path) == []
