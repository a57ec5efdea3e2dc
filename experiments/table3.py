"""Table 3: every method at equal budget, bits by test sets; crops of all methods, errors of all layers."""

from __future__ import annotations

from qartsr.config import Experiments, load_config
from qartsr.files import read_json, write_json
from qartsr.study.crops import crop_rows
from qartsr.study.figures import crops, heat_map
from qartsr.study.method_tables import load_cells, method_effects, method_table
from qartsr.study.table import write_tables
from qartsr.tracking import open_run
from stages._stage import arguments, stage


def main() -> None:
    """Write table3.csv, .md and .html, effects.json and the figures of every bit-width."""
    args = arguments(__doc__, "--compared", "--timesteps", "--samples", "--out")
    params = load_config(Experiments, args.params)
    methods, bits, timesteps = (
        params.tables.table3,
        params.tables.table3_bits,
        read_json(args.timesteps / "results.json"),
    )
    cells = load_cells(args.compared, methods, bits)
    fp = timesteps["fp"]["1"]
    names = {name: config.stands_for for name, config in params.sets.items()}
    write_tables([method_table(cells, fp, timesteps["bicubic"], names)], "Methods", args.out, "table3")
    write_json(args.out / "effects.json", method_effects(cells, fp))
    for name in bits:
        rows = crop_rows(args.compared, args.samples, list(params.sets), methods, name)
        crops(rows, ["bicubic", *(cells[m, name]["title"] for m in methods), "HR"], args.out / f"crops-{name}.png")
        errors = {cells[m, name]["title"]: cells[m, name]["layers"] for m in methods}
        heat_map(errors, f"Relative error of every layer, {name}", args.out / f"layers-{name}.png")
    with open_run("experiments", "table3", {}) as run:
        run.artifact(args.out)


if __name__ == "__main__":
    stage(main)
