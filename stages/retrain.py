"""TRQ: retrain the backbone at T = 1."""

from __future__ import annotations

from qartsr.config import load_params
from qartsr.tracking import NullRun, open_run
from qartsr.training.checkpoint import scratch_folder
from qartsr.training.determinism import prepare
from qartsr.training.distributed import init_distributed, relaunch_workers
from qartsr.training.loop import Curves
from qartsr.training.optimizer import Setting
from qartsr.training.trq import inputs, read_job, retrained, save_retrained
from stages._stage import arguments, stage


def main() -> None:
    """Write the retrained model and its loss curve."""
    args = arguments(__doc__, "--model", "--data", "--out", "--curves", "--work")
    params = load_params(args.params)
    if relaunch_workers("stages.retrain", params.compute.processes):
        return
    config, compute = params.retrain, params.compute
    setting = Setting(params.lpips, params.backbone.train_align, 1.0, params.seed)
    settings = [config.model_dump(), *map(str, setting)]
    folder = scratch_folder(args.work, "retrain", "stages.retrain", settings, [args.model, args.data, *inputs(config)])
    with init_distributed(prepare(compute, compute.threads_alone)) as world:
        job = read_job(args.model, args.data, config, setting, compute, folder, world)
        if not world.is_main_process:
            retrained(job, config.timestep, config.steps, Curves(NullRun().metrics))
            return
        with open_run(params.profile, "retrain", config.model_dump()) as run:
            curves = Curves(run.metrics, show=run.pictures)
            run.data("data", args.data, "training")
            save_retrained(job, retrained(job, config.timestep, config.steps, curves), args.out)
            curves.write(args.curves)
            run.artifact(args.curves)
        job.checkpoint.finish()


if __name__ == "__main__":
    stage(main)
