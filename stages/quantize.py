"""The retrained model quantized: module by module with training between (RPQ), or all at once, by calibration."""

from __future__ import annotations

from argparse import Namespace

from qartsr.config import Params, load_config, load_params, lr_scale, parse_bits
from qartsr.config.method import Training, lasting
from qartsr.config.parts import MethodConfig
from qartsr.data import load_calibration
from qartsr.data.pairs import to_unit
from qartsr.models import load_model
from qartsr.quantize import plan, save_state
from qartsr.tracking import NO_RUN, open_run
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.determinism import prepare
from qartsr.training.distributed import World, init_distributed, relaunch_workers
from qartsr.training.loop import Curves
from qartsr.training.optimizer import Setting
from qartsr.training.phases import Job, calibrated, shared, train
from stages._stage import arguments, stage


def main() -> None:
    """Write the quantized state, its plan and the loss curve of every module."""
    args = arguments(
        __doc__, "--layers", "--phases", "--model", "--calibration", "--out", "--curves", "--work", bits=True
    )
    params = load_params(args.params)
    asked = load_config(Training, args.phases)
    if relaunch_workers("stages.quantize", shared(asked.phases, params.compute.processes)):
        return
    with init_distributed(prepare(params.compute, params.compute.threads)) as world:
        _quantize(args, params, asked, world)


def _quantize(args: Namespace, params: Params, asked: Training, world: World) -> None:
    bits, device = parse_bits(args.bits), world.device
    setting = Setting(params.lpips, params.backbone.train_align, lr_scale(params.precision, args.bits), params.seed)
    inputs = [args.layers, args.phases, args.model, args.calibration]
    folder = scratch_folder(args.work, f"quantize-{bits}", "stages.quantize", [args.bits, *map(str, setting)], inputs)
    teacher = load_model(args.model).to(device)
    lq = to_unit(load_calibration(args.calibration).lq).to(device)
    decided = plan(teacher, load_config(MethodConfig, args.layers), bits, lq)
    job = Job(teacher, lq, setting, folder, params.compute.checkpoint_seconds, world)
    with open_run(params.profile, f"quantize@{bits}", asked.model_dump()) if world.is_main_process else NO_RUN as run:
        curves = Curves(run.metrics, show=run.pictures)
        run.data("calibration", args.calibration, "training")
        student = train(job, decided, lasting(asked, len(teacher.segments())), curves, lambda: calibrated(job, decided))
        if world.is_main_process:
            save_state(student, decided, args.out)
            curves.write(args.curves)
            run.artifact(args.curves)
    Checkpoint(folder, 0.0, world.is_main_process).finish()


if __name__ == "__main__":
    stage(main)
