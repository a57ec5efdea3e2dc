"""TRQ: retrain the backbone at T = 1 and measure what quantization would destroy at each timestep."""

from __future__ import annotations

from qartsr.config import load_params
from qartsr.data import load_pairs
from qartsr.files import write_json, write_text
from qartsr.models import load_model
from qartsr.tracking import NullRun, open_run
from qartsr.training.batches import calibration, source
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.curves import Curves
from qartsr.training.determinism import prepare
from qartsr.training.means import Means
from qartsr.training.probe import Probe, centre, probe, quality, table
from qartsr.training.quantized import Setting
from qartsr.training.trq import Job, inputs, retrainings, save_retrained
from qartsr.training.world import joined, launched
from stages._stage import arguments, stage


def main() -> None:
    """Write the retrained model, its loss curve, FP quality before and after, and the probe of Z_H."""
    args = arguments(__doc__, "--model", "--data", "--out", "--metrics", "--curves", "--probe", "--work")
    params = load_params(args.params)
    if launched("stages.retrain", params.compute.processes):
        return
    config, compute = params.retrain, params.compute
    settings = [params.seed, config.model_dump(), params.lpips.model_dump(), params.backbone.train_align]
    folder = scratch_folder(args.work, "retrain", settings, [args.model, args.data, *inputs(config)])
    with joined(prepare(compute, compute.threads_alone)) as world:
        job = Job(
            load_model(args.model), source(args.data, config.degradation, params.seed, compute.loaders), config,
            Setting(params.lpips, params.backbone.train_align, 1.0, params.seed),
            Means(world, compute.micro_batch, compute.gradient_checkpointing),
            Checkpoint(folder, compute.checkpoint_seconds, world.leads),
        )  # fmt: skip
        if not world.leads:
            for _ in retrainings(job, Curves(NullRun().metrics)):
                pass
            return
        rows, pairs = list[Probe](), load_pairs(args.data, "test")
        test = [centre(pair, config.probe_crop) for pair in pairs]
        ranges = calibration(job.source, config.crop, world.device)
        with open_run(params.profile, "retrain", config.model_dump()) as run:
            curves = Curves(run.metrics)
            for model in retrainings(job, curves):
                rows += probe(model, config.probe_bits, ranges, test)
                if model.timestep == config.timestep:
                    save_retrained(job, model, args.out)
            curves.write(args.curves)
            write_json(args.metrics, quality(rows))
            write_text(args.probe, table(rows))
            run.artifact(args.probe)
        job.checkpoint.finish()


if __name__ == "__main__":
    stage(main)
