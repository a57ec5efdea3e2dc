"""QuantVSR's ablation on clips: whether its branch is trained, and LBA, beside the published figures."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.study.method_tables import Cells, budget_notes, value
from experiments.study.table import Column, Line, Table, Value

_OURS = (
    Column("psnr", "PSNR ↑", 3, 1),
    Column("lpips_random", "LPIPS-random ↓", 4, -1),
    Column("ewarp_tvl1", "E*warp (TV-L1) ↓", 3, -1),
)
_PUBLISHED = (
    Column("paper_psnr", "paper: PSNR", 2),
    Column("paper_lpips", "paper: LPIPS", 4),
    Column("paper_ewarp", "paper: E*warp", 2),
)
_PAPER = {
    "no-branch": (17.13, 0.6480, 10.00),
    "no-branch-lba": (21.38, 0.3666, 3.27),
    "svd": (18.94, 0.5921, 6.40),
    "svd-lba": (22.58, 0.3296, 1.90),
    "quantvsr-no-lba": (22.75, 0.2914, 1.74),
    "quantvsr": (22.76, 0.2857, 1.76),
}
"""Row -> PSNR (dB), LPIPS, E*warp (RAFT) of QuantVSR's ablation: SPMCS, W4A4, MGLD-VSR."""


def clip_ablation(cells: Cells, rows: tuple[str, ...], bits: str, fp: Mapping[str, float]) -> Table:
    """Means over all sets of ``rows`` at ``bits``, the published ones beside them. ``fp``: metric -> value."""
    lines = [Line(("FP",), {column.key: Value(fp[column.key]) for column in _OURS}, competes=False)]
    for row in rows:
        values = {column.key: value(cells[row, bits], "all", column.key) for column in _OURS}
        for column, published in zip(_PUBLISHED, _PAPER.get(row, ()), strict=False):
            values[column.key] = Value(published)
        lines.append(Line((cells[row, bits]["title"],), values))
    shown = {key: cell for key, cell in cells.items() if key[0] in rows and key[1] == bits}
    notes = (
        *budget_notes(shown),
        "The published columns are of MGLD-VSR on SPMCS in 50 steps, with RAFT's flow and the published LPIPS: compare "
        "orders, not numbers.",
    )
    return Table(f"QuantVSR's ablation, {bits}", ("row",), (*_OURS, *_PUBLISHED), tuple(lines), notes)
