"""The retrained model quantized: module by module with training between (RPQ), or all at once, by calibration."""

from __future__ import annotations

from qartsr.config import load_config, load_params, parse_bits
from qartsr.config.method import Training, lasting
from qartsr.config.parts import MethodConfig
from qartsr.data import load_calibration
from qartsr.data.pairs import to_unit
from qartsr.models import load_model
from qartsr.quantize import plan, save_state
from qartsr.tracking import open_run
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.curves import Curves
from qartsr.training.determinism import prepare
from qartsr.training.optimizer import Setting
from qartsr.training.phases import Job, calibrated, train
from stages._stage import arguments, stage


def main() -> None:
    """Write the quantized state, its plan and the loss curve of every module."""
    args = arguments(
        __doc__, "--layers", "--phases", "--model", "--calibration", "--out", "--curves", "--work", bits=True
    )
    params = load_params(args.params)
    bits, device = parse_bits(args.bits), prepare(params.compute, params.compute.threads)
    setting = Setting(params.lpips, params.backbone.train_align, params.precision[args.bits].lr_scale, params.seed)
    inputs = [args.layers, args.phases, args.model, args.calibration]
    folder = scratch_folder(args.work, f"quantize-{bits}", "stages.quantize", [args.bits, *map(str, setting)], inputs)
    teacher, asked = load_model(args.model).to(device), load_config(Training, args.phases)
    lq = to_unit(load_calibration(args.calibration).lq).to(device)
    decided = plan(teacher, load_config(MethodConfig, args.layers), bits, lq)
    job = Job(teacher, lq, setting, folder, params.compute.checkpoint_seconds)
    with open_run(params.profile, f"quantize@{bits}", asked.model_dump()) as run:
        curves = Curves(run.metrics)
        student = train(job, decided, lasting(asked, len(teacher.segments())), curves, lambda: calibrated(job, decided))
        save_state(student, decided, args.out)
        curves.write(args.curves)
        run.artifact(args.curves)
    Checkpoint(folder, 0.0).finish()


if __name__ == "__main__":
    stage(main)
