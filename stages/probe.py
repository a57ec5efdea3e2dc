"""What quantization would destroy at several timesteps: the backbone retrained briefly at each, beside TRQ's result."""

from __future__ import annotations

from qartsr.config import load_params
from qartsr.data import load_pairs
from qartsr.files import write_json, write_text
from qartsr.tracking import open_run
from qartsr.training.batches import calibration
from qartsr.training.checkpoint import scratch_folder
from qartsr.training.determinism import prepare
from qartsr.training.distributed import init_distributed, relaunch_workers
from qartsr.training.optimizer import Setting
from qartsr.training.probe import Probe, centre, probe, probed, quality, table
from qartsr.training.trq import inputs, read_job
from stages._stage import arguments, stage


def main() -> None:
    """Write the FP quality and the error of Z_H of every probed timestep, and the table of all measurements."""
    args = arguments(__doc__, "--model", "--retrained", "--data", "--metrics", "--probe", "--work")
    params = load_params(args.params)
    if relaunch_workers("stages.probe", params.compute.processes):
        return
    config, compute = params.retrain, params.compute
    setting = Setting(params.lpips, params.backbone.train_align, 1.0, params.seed)
    settings = [config.model_dump(), *map(str, setting), list(params.probe.timesteps), params.probe.steps]
    folder = scratch_folder(args.work, "probe", "stages.probe", settings, [args.model, args.data, *inputs(config)])
    with init_distributed(prepare(compute, compute.threads)) as world:
        job = read_job(args.model, args.data, config, setting, compute, folder, world)
        models = probed(job, params.probe, args.retrained)
        if not world.is_main_process:
            for _ in models:
                pass
            return
        rows, test = list[Probe](), [centre(pair, params.probe.crop) for pair in load_pairs(args.data, "test")]
        ranges = calibration(job.source, config.crop, world.device)
        with open_run(params.profile, "probe", params.probe.model_dump()) as run:
            for model in models:
                rows += probe(model, params.probe.bits, ranges, test)
            write_json(args.metrics, quality(rows))
            write_text(args.probe, table(rows))
            run.artifact(args.probe)
        job.checkpoint.finish()


if __name__ == "__main__":
    stage(main)
