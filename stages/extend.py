"""All quantized modules trained together, phase after phase (ET: one, on the image loss)."""

from __future__ import annotations

from argparse import Namespace

from qartsr.config import Params, load_config, load_params, lr_scale, parse_bits
from qartsr.config.method import Training, lasting
from qartsr.data import load_calibration
from qartsr.data.pairs import to_unit
from qartsr.models import fold_constants, load_model
from qartsr.quantize import load_state, round_for_storage, save_state
from qartsr.tracking import NO_RUN, open_run
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.determinism import prepare
from qartsr.training.distributed import World, init_distributed, relaunch_workers
from qartsr.training.loop import Curves
from qartsr.training.optimizer import Setting
from qartsr.training.phases import Job, shared, train
from stages._stage import arguments, stage


def main() -> None:
    """Write the final quantized state and the loss curve."""
    args = arguments(
        __doc__, "--phases", "--model", "--state", "--calibration", "--out", "--curves", "--work", bits=True
    )
    params, asked = load_params(args.params), load_config(Training, args.phases)
    whole = [phase for phase in asked.phases if phase.kind == "model"]
    if relaunch_workers("stages.extend", shared(whole, params.compute.processes)):
        return
    with init_distributed(prepare(params.compute, params.compute.threads)) as world:
        _extend(args, params, asked, world)


def _extend(args: Namespace, params: Params, asked: Training, world: World) -> None:
    bits, device = parse_bits(args.bits), world.device
    setting = Setting(params.lpips, params.backbone.train_align, lr_scale(params.precision, args.bits), params.seed)
    inputs, settings = [args.phases, args.model, args.state, args.calibration], [args.bits, *map(str, setting)]
    folder = scratch_folder(args.work, f"extend-{bits}", "stages.extend", settings, inputs)
    teacher, student = load_model(args.model).to(device), load_model(args.model).to(device)
    decided = load_state(student, args.state)
    phases = [phase for phase in lasting(asked, len(teacher.segments())) if phase.kind == "model"]
    lq = to_unit(load_calibration(args.calibration).lq).to(device)
    job = Job(teacher, lq, setting, folder, params.compute.checkpoint_seconds, world)
    with open_run(params.profile, f"extend@{bits}", asked.model_dump()) if world.is_main_process else NO_RUN as run:
        curves = Curves(run.metrics, show=run.pictures)
        run.data("calibration", args.calibration, "training")
        student = train(job, decided, phases, curves, lambda: student.to(device))
        if world.is_main_process:
            fold_constants(student)
            round_for_storage(student)
            save_state(student, decided, args.out)
            curves.write(args.curves)
            run.artifact(args.curves)
    Checkpoint(folder, 0.0, world.is_main_process).finish()


if __name__ == "__main__":
    stage(main)
