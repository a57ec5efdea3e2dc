"""Table 4: QArtSR's components, each taken out or exchanged, beside the whole; some of them again with more steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.study.method_tables import OURS, Cells, ablation_effects, ablation_table, load_cells
from experiments.study.table import write_tables
from qartsr.config import load_config
from qartsr.config.experiment import Experiments
from qartsr.files import write_json
from qartsr.tracking import open_run
from stages._stage import arguments, stage


def main() -> None:
    """Write table4.csv, .md and .html, and effects.json."""
    args = arguments(__doc__, "--compared", "--ablated", "--longer", "--out")
    params = load_config(Experiments, args.params)
    bits, longer_bits, title = params.tables.table4_bits, params.tables.longer_bits, "Table 4: QArtSR's components"
    cells = load_cells(args.ablated, params.tables.table4, bits)
    ours = _by_bits(load_cells(args.compared, [OURS], bits))
    more = load_cells(args.longer, [name for name in params.tables.longer if name != OURS], longer_bits)
    whole = _by_bits(load_cells(args.longer, [OURS], longer_bits))
    longer = ablation_table(more, whole, f"{title}, {params.tables.longer_times} times the steps")
    write_tables([ablation_table(cells, ours, title), longer], "Components", args.out, "table4")
    effects = {f"{name}_longer": found for name, found in ablation_effects(more, whole).items()}
    write_json(args.out / "effects.json", ablation_effects(cells, ours) | effects)
    with open_run("experiments", "table4", {}) as run:
        run.artifact(args.out)


def _by_bits(cells: Cells) -> dict[str, Mapping[str, Any]]:
    return {bits: cell for (_, bits), cell in cells.items()}


if __name__ == "__main__":
    stage(main)
