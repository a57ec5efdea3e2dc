"""A cost as text: three tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qartsr.cost.components import Component
from qartsr.cost.report import Cost, Row

_NOTE = """\
Parameters and operations are counted as the paper's Table 2 counts them: b bits are b / 32 of one. "low-rank G" are
operations of the low-rank branches, which that table leaves out. "file MB": the package as written; in row fp the
model's checkpoint in fp16, without a text encoder. None of this is time: see benchmarks/."""


def as_text(cost: Cost) -> str:
    """The rows, what they are made of, and the components."""
    title = f"{cost.model}, {cost.size} x {cost.size} output, low-rank branches of rank {cost.rank}"
    return "\n\n".join([title, _rows(cost.rows), _NOTE, _lines(cost.rows), _components(cost.components)])


def _rows(rows: Sequence[Row]) -> str:
    head = ("bits", "params M", "paper", "ops G", "paper", "low-rank G", "file MB", "of fp16")
    return _grid(head, [_row(row, rows[0].file_bytes) for row in rows])


def _row(row: Row, whole: int) -> tuple[str, ...]:
    params, ops = (f"{value:g}" for value in row.paper) if row.paper else ("", "")
    counted = (f"{row.params_m:.1f}", params, f"{row.ops_g:.1f}", ops, f"{2 * row.branch_macs / 1e9:.1f}")
    return row.bits, *counted, f"{row.file_bytes / 1e6:.1f}", f"1 / {whole / row.file_bytes:.2f}"


def _lines(rows: Iterable[Row]) -> str:
    body = [
        (row.bits, line.name, f"{line.params / 1e6:.3f}", f"{2 * line.macs / 1e9:.3f}")
        for row in rows
        for line in row.lines
    ]
    return _grid(("bits", "made of", "params M", "ops G"), body, left=2)


def _components(components: Iterable[Component]) -> str:
    body = []
    for component in components:
        name = component.name if component.runs else f"{component.name} (not run)"
        body.append((name, "all", f"{component.params / 1e6:.3f}", f"{component.macs / 1e9:.3f}"))
        body += [
            ("", kind, f"{params / 1e6:.3f}", f"{macs / 1e9:.3f}") for kind, (params, macs) in component.layers.items()
        ]
    return _grid(("component", "layers", "params M", "GMAC"), body, left=2)


def _grid(head: Sequence[str], body: Iterable[Sequence[str]], left: int = 1) -> str:
    """Columns as wide as their widest cell; the first ``left`` flush left, the others right."""
    cells = [head, *body]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
