"""Table 4: QArtSR's components, each taken out or exchanged, beside the whole."""

from __future__ import annotations

from qartsr.config import Experiments, load_config
from qartsr.files import write_json
from qartsr.study.method_tables import OURS, ablation_effects, ablation_table, load_cells
from qartsr.study.table import write_tables
from stages._stage import arguments, stage


def main() -> None:
    """Write table4.csv, .md and .html, and effects.json."""
    args = arguments(__doc__, "--compared", "--ablated", "--out")
    params = load_config(Experiments, args.params)
    bits = params.tables.table4_bits
    cells = load_cells(args.ablated, params.tables.table4, bits)
    ours = {name: cell for (_, name), cell in load_cells(args.compared, [OURS], bits).items()}
    write_tables([ablation_table(cells, ours)], "Components", args.out, "table4")
    write_json(args.out / "effects.json", ablation_effects(cells, ours))


if __name__ == "__main__":
    stage(main)
