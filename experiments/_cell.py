"""What the stages that train and measure one method at one bit-width share."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from experiments.study.cell import Cell, run_cell, write_cell
from experiments.study.measure import Judge
from experiments.study.sets import load_windows
from qartsr.config.experiment import Experiments
from qartsr.errors import QartsrError
from qartsr.models import load_model
from qartsr.tracking import open_run
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.determinism import prepare
from qartsr.training.optimizer import Setting


def run_stage(
    kind: str,
    args: Namespace,
    params: Experiments,
    rates: tuple[float, ...],
    inputs: tuple[Path, ...] = (),
    times: int = 1,
) -> None:
    """Train ``args.method`` at ``args.bits`` on all seeds, with ``times`` the budget's steps; write what came of it.

    ``inputs``: what the rates were read from. Finished runs of an interrupted stage are taken up.
    """
    if args.method not in params.methods:
        known = ", ".join(params.methods)
        raise QartsrError(f"there is no method {args.method!r}", str(args.params), f"name one of {known}")
    row, device = params.methods[args.method], prepare(params.compute, params.compute.threads)
    budget = params.budget.model_copy(update={"steps": times * params.budget.steps})
    settings = [args.bits, row.model_dump(), params.common.model_dump(), budget.model_dump(), params.train_align]
    settings.append(params.lpips.model_dump())
    home = args.backbones / f"t{row.timestep}"
    folder = scratch_folder(
        args.work, f"{kind}-{args.method}", "experiments._cell", settings, [home, args.samples, *inputs]
    )
    teacher = load_model(home).to(device)
    windows = load_windows(args.samples, params.sets)
    cell = Cell(
        teacher, row, args.bits, params.common, budget, Setting(params.lpips, params.train_align, 1.0, 0),
        args.samples, folder, params.compute.checkpoint_seconds,
    )  # fmt: skip
    suffix = f" x{times}" if times > 1 else ""
    with open_run("experiments", f"{args.method}@{args.bits}{suffix}", row.model_dump()) as run:
        results = run_cell(cell, params.seeds, rates, Judge(windows, params.lpips, teacher))
        write_cell(cell, results, params.seeds[0], windows, args.out)
        for seed, found in results["seeds"].items():
            run.metrics(found["means"]["all"], int(seed))
    Checkpoint(folder, 0.0).finish()
