"""TRQ: retrain the backbone at T = 1."""

from __future__ import annotations

from qartsr.config import load_params
from qartsr.models import load_model
from qartsr.tracking import NullRun, open_run
from qartsr.training.batches import source
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.curves import Curves
from qartsr.training.determinism import prepare
from qartsr.training.means import Means
from qartsr.training.optimizer import Setting
from qartsr.training.trq import Job, inputs, retrained, save_retrained
from qartsr.training.world import joined, launched
from stages._stage import arguments, stage


def main() -> None:
    """Write the retrained model and its loss curve."""
    args = arguments(__doc__, "--model", "--data", "--out", "--curves", "--work")
    params = load_params(args.params)
    if launched("stages.retrain", params.compute.processes):
        return
    config, compute = params.retrain, params.compute
    settings = [params.seed, config.model_dump(), params.lpips.model_dump(), params.backbone.train_align]
    folder = scratch_folder(args.work, "retrain", "stages.retrain", settings, [args.model, args.data, *inputs(config)])
    with joined(prepare(compute, compute.threads_alone)) as world:
        job = Job(
            load_model(args.model), source(args.data, config.degradation, params.seed, compute.loaders), config,
            Setting(params.lpips, params.backbone.train_align, 1.0, params.seed),
            Means(world, compute.micro_batch, compute.gradient_checkpointing),
            Checkpoint(folder, compute.checkpoint_seconds, world.leads),
        )  # fmt: skip
        if not world.leads:
            retrained(job, config.timestep, config.steps, Curves(NullRun().metrics))
            return
        with open_run(params.profile, "retrain", config.model_dump()) as run:
            curves = Curves(run.metrics)
            save_retrained(job, retrained(job, config.timestep, config.steps, curves), args.out)
            curves.write(args.curves)
            run.artifact(args.curves)
        job.checkpoint.finish()


if __name__ == "__main__":
    stage(main)
