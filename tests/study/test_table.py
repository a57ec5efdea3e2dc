"""Means and spreads by hand; what is best and what is tied; three files with the same numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from experiments.study.table import Column, Line, Table, Value, best, summary, tied, write_tables

PSNR, LPIPS = Column("psnr", "PSNR", 2, 1), Column("lpips", "LPIPS", 4, -1)


def _lines() -> tuple[Line, ...]:
    return (
        Line(("fp",), {"psnr": Value(40.0)}, "a", competes=False),
        Line(("one",), {"psnr": Value(30.0, 0.2), "lpips": Value(0.3, 0.01)}, "a"),
        Line(("two",), {"psnr": Value(30.15, 0.1), "lpips": Value(0.2, 0.01)}, "a"),
        Line(("three",), {"psnr": Value(29.0, 0.1), "lpips": Value(0.5, 0.01)}, "a"),
        Line(("other",), {"psnr": Value(10.0, 0.0)}, "b"),
    )


def test_summary_is_mean_and_sample_deviation() -> None:
    assert summary([1.0, 2.0, 3.0]) == Value(2.0, 1.0)
    assert math.isnan(summary([5.0]).spread)


def test_tied_within_the_larger_spread() -> None:
    assert tied(Value(1.0, 0.5), Value(1.5, 0.0)) and not tied(Value(1.0, 0.4), Value(1.5, 0.4))


def test_best_of_each_group_with_its_ties_and_without_references() -> None:
    assert best(_lines(), PSNR) == {1, 2, 4}
    assert best(_lines(), LPIPS) == {2}
    assert best(_lines(), Column("psnr", "PSNR", 2)) == set()


def test_three_files_hold_the_table(tmp_path: Path) -> None:
    table = Table("Title <1>", ("method",), (PSNR, LPIPS), _lines(), ("A note.",))
    write_tables([table, table], "Page", tmp_path, "t")
    rows = (tmp_path / "t.csv").read_text().splitlines()
    assert rows[0] == "method,psnr,psnr_spread,lpips,lpips_spread"
    assert rows[1] == "fp,40,,," and rows[2] == "one,30,0.2,0.3,0.01"
    assert (tmp_path / "t-2.csv").read_text() == (tmp_path / "t.csv").read_text()
    markdown = (tmp_path / "t.md").read_text()
    assert "| two | **30.15 ± 0.10** | **0.2000 ± 0.0100** |" in markdown and "- A note." in markdown
    page = (tmp_path / "t.html").read_text()
    assert "Title &lt;1&gt;" in page and "<td class=best>30.15 ± 0.10</td>" in page and "src=" not in page


@pytest.mark.parametrize("value", [Value(math.nan), Value(1.0)])
def test_missing_numbers_leave_no_trace(value: Value) -> None:
    assert "nan" not in value.text(2)
