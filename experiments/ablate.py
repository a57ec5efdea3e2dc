"""QArtSR with one component taken out or another order (Table 4), at the rate that QArtSR chose."""

from __future__ import annotations

from qartsr.config import Experiments, load_config
from qartsr.files import read_json
from qartsr.models import load_model
from qartsr.study.cell import Cell, run_cell, write_cell
from qartsr.study.measure import Judge
from qartsr.study.sets import load_windows
from qartsr.tracking import open_run
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.determinism import prepare
from qartsr.training.quantized import Setting
from stages._stage import arguments, stage


def main() -> None:
    """Write results.json, the losses and the restored windows."""
    args = arguments(__doc__, "--backbones", "--samples", "--ours", "--out", "--work", bits=True, method=True)
    params = load_config(Experiments, args.params)
    row, device = params.methods[args.method], prepare(params.compute, params.compute.threads)
    rate = read_json(args.ours / "results.json")["rate"]
    settings = [args.bits, row.model_dump(), params.common.model_dump(), params.budget.model_dump(), params.train_align]
    home = args.backbones / f"t{row.timestep}"
    folder = scratch_folder(args.work, f"ablate-{args.method}", settings, [home, args.samples, args.ours])
    teacher = load_model(home).to(device)
    windows = load_windows(args.samples, params.sets)
    cell = Cell(
        teacher, row, args.bits, params.common, params.budget, Setting(params.lpips, params.train_align, 1.0, 0),
        args.samples, folder, params.compute.checkpoint_seconds,
    )  # fmt: skip
    with open_run("experiments", f"{args.method}@{args.bits}", row.model_dump()) as run:
        results = run_cell(cell, params.seeds, (rate,), Judge(windows, params.lpips, teacher))
        write_cell(cell, results, params.seeds[0], windows, args.out)
        for seed, found in results["seeds"].items():
            run.metrics(found["means"]["all"], int(seed))
    Checkpoint(folder, 0.0).finish()


if __name__ == "__main__":
    stage(main)
