"""The tables of results, from files as the stages write them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines.table import COLUMNS, markdown, not_measured, put, readme, results_table, rich_tables
from qartsr.errors import QartsrError

README = """Means over photographs, 3 pictures:

| | PSNR, dB | PSNR RGB, dB | SSIM | PSNR to FP, dB | file |
| --- | --: | --: | --: | --: | --: |
| bicubic | 24.00 | 23.00 | 0.7000 | 28.50 | |
| FP | 25.13 | 24.00 | 0.7654 | | 4.00 MB |
| W4A4 | 25.00 | 23.90 | 0.7500 | 38.21 | 0.80 MB |
| W3A3 | | | | | |
| W2A2 | | | | | |"""


@pytest.fixture()
def run(tmp_path: Path, root: Path) -> Path:
    """A finished run: bicubic, FP and w4a4; nothing of w3a3 and w2a2 but their place in params.yaml."""
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    _means(tmp_path, "bicubic", {"psnr": 24.0, "psnr_rgb": 23.0, "ssim": 0.7, "psnr_to_fp": 28.5})
    _means(tmp_path, "fp", {"psnr": 25.126, "psnr_rgb": 24.0, "ssim": 0.76543})
    _means(tmp_path, "w4a4", {"psnr": 25.0, "psnr_rgb": 23.9, "ssim": 0.75, "psnr_to_fp": 38.211})
    _write(tmp_path / "metrics/probe.json", {"t1": {"psnr_fp": 25.0}})
    _write(tmp_path / "build/receipts/w4a4.json", {"model": "qartsr-sample-w4a4", "version": 3, "uri": "s3://qartsr/x"})
    _write(tmp_path / "build/evaluated/reference/model.json", {"bytes": 4_000_000, "parameters": 1_000_000})
    package = tmp_path / "build/packages/w4a4/model.safetensors"
    package.parent.mkdir(parents=True)
    package.write_bytes(bytes(800_000))
    return tmp_path


def _means(folder: Path, subject: str, means: dict[str, float], sets: dict[str, Any] | None = None) -> None:
    sets = sets or {"photographs": {"pictures": 3, **means}}
    _write(folder / "metrics" / f"{subject}.json", {"photographs": {**means, "sets": sets}})


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def test_rows_and_cells(run: Path) -> None:
    three = "photographs, 3 pictures"
    assert [tuple(row) for row in results_table(run)] == [
        (three, "bicubic", "24.00", "23.00", "0.7000", "", "28.50", "", "", ""),
        (three, "fp", "25.13", "24.00", "0.7654", "", "", "4.00 MB", "", ""),
        (three, "w4a4", "25.00", "23.90", "0.7500", "", "38.21", "0.80 MB", "v3", "s3://qartsr/x"),
        (three, "w3a3", "", "", "", "", "", "", "", ""),
        (three, "w2a2", "", "", "", "", "", "", "", ""),
    ]


def test_sets_have_rows_of_their_own_below_all_pictures(run: Path) -> None:
    sets = {"photographs": {"pictures": 3, "psnr": 25.0}, "wallpapers": {"pictures": 5, "psnr": 33.0, "niqe": 4.5}}
    _means(run, "w4a4", {"psnr": 30.0}, sets)
    found = {(row.pictures, row.psnr, row.niqe, row.file) for row in results_table(run) if row.model == "w4a4"}
    assert found == {
        ("all, 8 pictures", "30.00", "", "0.80 MB"),
        ("photographs, 3 pictures", "25.00", "", "0.80 MB"),
        ("wallpapers, 5 pictures", "33.00", "4.500", "0.80 MB"),
    }
    assert [table.title and str(table.title).split(":")[0] for table in rich_tables(results_table(run))] == [
        "Means over all, 8 pictures",
        "Means over photographs, 3 pictures",
        "Means over wallpapers, 5 pictures",
    ]
    assert readme(results_table(run)).count("| NIQE |") == 1


def test_markdown_has_a_line_per_row(run: Path) -> None:
    lines = markdown(results_table(run)).splitlines()
    assert len(lines) == 2 + 5
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 1}


@pytest.mark.parametrize("niqe", [{}, {"niqe": 12.345}])
def test_terminal_table_fits_eighty_columns(run: Path, niqe: dict[str, float]) -> None:
    _means(run, "fp", {"psnr": 25.126, "psnr_rgb": 24.0, "ssim": 0.76543, **niqe})
    console = Console(width=80)
    with console.capture() as capture:
        console.print(*rich_tables(results_table(run)))
    assert "…" not in capture.get() and "25.13" in capture.get()
    assert ("NIQE" in capture.get()) == ("12.345" in capture.get()) == bool(niqe)


def test_why_there_is_no_niqe(run: Path) -> None:
    assert not_measured(run) == {}
    reasons = {"niqe": "needs a file; fetch with `qartsr x`", "musiq": "is no column"}
    _write(run / "build/evaluated/reference/fp/unavailable.json", reasons)
    _write(run / "build/evaluated/w4a4/unavailable.json", {"ssim": "is not defined on x: too small"})
    reasons = {"SSIM of W4A4": "is not defined on x: too small", "NIQE": "needs a file; fetch with `qartsr x`"}
    assert not_measured(run) == reasons


def test_the_readme_is_filled_from_the_metrics(run: Path, root: Path) -> None:
    """By the command; the rest of the file stays as it is, and a second time changes nothing."""
    before = (root / "README.md").read_text()
    (run / "README.md").write_text(before)
    command = [sys.executable, "-m", "pipelines.table"]
    environment = {"PYTHONPATH": str(root), "PATH": ""}
    printed = subprocess.run(command, cwd=run, env=environment, capture_output=True, text=True, check=True).stdout
    assert printed == README + "\n"
    for _ in range(2):
        subprocess.run([*command, "README.md"], cwd=run, env=environment, check=True)
        after = (run / "README.md").read_text()
        assert README in after
        assert after.split("<!-- results")[0] == before.split("<!-- results")[0]
        assert after.split("<!-- end of results")[1] == before.split("<!-- end of results")[1]


@pytest.mark.parametrize(
    "text", ["no place", "\n<!-- results -->\nno end\n", 2 * "\n<!-- results -->\n<!-- end of results -->\n"]
)
def test_a_file_without_one_place_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(QartsrError, match=r"page\.md: needs one line `<!-- results -->`"):
        put(tmp_path / "page.md", README)
    assert (tmp_path / "page.md").read_text() == text


def test_before_the_first_run_the_table_is_empty(tmp_path: Path, root: Path) -> None:
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    assert results_table(tmp_path) == []
