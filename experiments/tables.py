"""Methods at equal budget on another backbone than the sample's UNet: a model of clips, or a transformer."""

from __future__ import annotations

from experiments.study.clip_table import clip_ablation
from experiments.study.figures import crop_rows, crops, rate_quality
from experiments.study.measure import Judge, means, package_bytes
from experiments.study.method_tables import COLUMNS, OVER_TIME, load_cells, method_effects, method_table, rate_points
from experiments.study.sets import load_inputs, load_windows
from experiments.study.table import write_tables
from qartsr.config import load_config
from qartsr.config.experiment import Experiments
from qartsr.files import write_json
from qartsr.models import load_model
from qartsr.tracking import open_run
from stages._stage import arguments, stage


def main() -> None:
    """Write NAME.csv, .md and .html, effects.json and the figures, NAME being that of the folder.

    Of clips NAME-2.csv as well, QuantVSR's ablation beside the published one. Cells of which only the results are
    there, as in experiments/results/dit, have no pictures.
    """
    args = arguments(__doc__, "--compared", "--backbones", "--samples", "--out")
    params = load_config(Experiments, args.params)
    methods, tables = params.tables.table3, params.tables
    cells, windows = load_cells(args.compared, methods, tables.table3_bits), load_windows(args.samples, params.sets)
    model = load_model(args.backbones / f"t{params.methods[methods[0]].timestep}")
    judge = Judge(windows, params.lpips, model)
    fp, bicubic = means(judge.scores(judge.images(model))), means(judge.bicubic())
    lq, _ = load_inputs(args.samples, params.seeds[0], params.budget.length)
    sizes = {(m, b): package_bytes(model, params.methods[m], params.common, b, lq) for m, b in cells}
    names = {name: config.stands_for for name, config in params.sets.items()}
    name, of_clips = args.out.name, any(config.clips for config in params.sets.values())
    columns = (*COLUMNS, *OVER_TIME) if of_clips else COLUMNS
    pages = [method_table(cells, fp, bicubic, names, sizes, f"Methods on {name} at equal budget", columns)]
    if tables.ablation:
        pages.append(clip_ablation(cells, tables.ablation, tables.ablation_bits, fp["all"]))
    write_tables(pages, name.capitalize(), args.out, name)
    write_json(args.out / "effects.json", method_effects(cells, fp))
    rate_quality(rate_points(cells, sizes), args.out / "rates.png")
    for bits in tables.table3_bits:
        seen = [m for m in methods if (args.compared / f"{m}-{bits}" / "images.safetensors").is_file()]
        rows = crop_rows(args.compared, args.samples, list(params.sets), seen, bits)
        crops(rows, ["bicubic", *(cells[m, bits]["title"] for m in seen), "HR"], args.out / f"crops-{bits}.png")
    with open_run("experiments", name, {}) as run:
        run.artifact(args.out)


if __name__ == "__main__":
    stage(main)
