"""Table 1: timesteps under MaxMin, with the error of Z_H and λ; the schedule and the stages inside the model."""

from __future__ import annotations

from experiments.study.figures import schedule, stages
from experiments.study.method_tables import COLUMNS
from experiments.study.table import write_tables
from experiments.study.timestep_table import timestep_effects, timestep_tables
from qartsr.config import load_config
from qartsr.config.experiment import Experiments
from qartsr.files import read_json, write_json
from qartsr.models.sd_unet.schedule import alphas_cumprod
from qartsr.tracking import open_run
from stages._stage import arguments, stage


def main() -> None:
    """Write table1.csv, .md and .html, effects.json and two figures."""
    args = arguments(__doc__, "--timesteps", "--out")
    params = load_config(Experiments, args.params)
    results, dataset, shown = (
        read_json(args.timesteps / "results.json"),
        next(iter(params.sets)),
        params.backbones.timesteps,
    )
    tables = timestep_tables(results, COLUMNS, dataset, len(params.seeds))
    write_tables(tables, "Timesteps", args.out, "table1")
    write_json(args.out / "effects.json", timestep_effects(results, dataset))
    schedule(alphas_cumprod().tolist(), shown, args.out / "schedule.png")
    kept = {step: args.timesteps / f"stages-t{step}.safetensors" for step in shown}
    stages(kept, params.tables.table1_bits[-1], args.out / "stages.png")
    with open_run("experiments", "table1", {}) as run:
        run.artifact(args.out)


if __name__ == "__main__":
    stage(main)
