"""Table 3: every method at equal budget, bits by test sets; crops of all methods, errors of all layers."""

from __future__ import annotations

from experiments.study.figures import crop_rows, crops, heat_map, rate_quality
from experiments.study.measure import package_bytes
from experiments.study.method_tables import load_cells, method_effects, method_table, rate_points
from experiments.study.sets import load_inputs
from experiments.study.table import write_tables
from qartsr.config import load_config
from qartsr.config.experiment import Experiments
from qartsr.files import read_json, write_json
from qartsr.models import load_model
from qartsr.tracking import open_run
from stages._stage import arguments, stage


def main() -> None:
    """Write table3.csv, .md and .html, effects.json and the figures."""
    args = arguments(__doc__, "--compared", "--timesteps", "--backbones", "--samples", "--out")
    params = load_config(Experiments, args.params)
    methods, bits = params.tables.table3, params.tables.table3_bits
    cells, timesteps = load_cells(args.compared, methods, bits), read_json(args.timesteps / "results.json")
    lq, _ = load_inputs(args.samples, params.seeds[0])
    sizes = {
        (name, b): package_bytes(load_model(args.backbones / f"t{row.timestep}"), row, params.common, b, lq)
        for name, b in cells
        for row in [params.methods[name]]
    }
    fp, names = timesteps["fp"]["1"], {name: config.stands_for for name, config in params.sets.items()}
    write_tables([method_table(cells, fp, timesteps["bicubic"], names, sizes)], "Methods", args.out, "table3")
    write_json(args.out / "effects.json", method_effects(cells, fp))
    rate_quality(rate_points(cells, sizes), args.out / "rates.png")
    for name in bits:
        rows = crop_rows(args.compared, args.samples, list(params.sets), methods, name)
        crops(rows, ["bicubic", *(cells[m, name]["title"] for m in methods), "HR"], args.out / f"crops-{name}.png")
        errors = {cells[m, name]["title"]: cells[m, name]["layers"] for m in methods}
        heat_map(errors, f"Relative error of every layer, {name}", args.out / f"layers-{name}.png")
    with open_run("experiments", "table3", {}) as run:
        run.artifact(args.out)


if __name__ == "__main__":
    stage(main)
