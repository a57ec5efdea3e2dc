"""ET: train all quantized modules together on the image loss."""

from __future__ import annotations

from qartsr.config import load_params, parse_bits
from qartsr.data import load_calibration
from qartsr.data.pairs import to_unit
from qartsr.models import fold_constants, load_model
from qartsr.quantize import load_state, round_for_storage, save_state
from qartsr.tracking import open_run
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.curves import Curves
from qartsr.training.determinism import prepare
from qartsr.training.et import extend, teacher_images
from qartsr.training.inner import inside
from qartsr.training.optimizer import Setting
from stages._stage import arguments, stage


def main() -> None:
    """Write the final quantized state and the loss curve."""
    args = arguments(__doc__, "--model", "--state", "--calibration", "--out", "--curves", "--work", bits=True)
    params = load_params(args.params)
    bits, device = parse_bits(args.bits), prepare(params.compute, params.compute.threads)
    setting = Setting(params.lpips, params.backbone.train_align, params.precision[args.bits].lr_scale, params.seed)
    settings = [args.bits, params.extend.model_dump(), *map(str, setting)]
    folder = scratch_folder(
        args.work, f"extend-{bits}", "stages.extend", settings, [args.model, args.state, args.calibration]
    )
    checkpoint = Checkpoint(folder, params.compute.checkpoint_seconds)
    teacher, student = load_model(args.model).to(device), load_model(args.model).to(device)
    decided = load_state(student, args.state)
    student.to(device)
    lq = to_unit(load_calibration(args.calibration).lq).to(device)
    with open_run(params.profile, f"extend@{bits}", params.extend.model_dump()) as run:
        curves = Curves(run.metrics)
        forward = inside(teacher, lq, params.extend)
        extend(student, teacher_images(teacher, lq), lq, params.extend, setting, curves, checkpoint, forward)
        fold_constants(student)
        round_for_storage(student)
        save_state(student, decided, args.out)
        curves.write(args.curves)
        run.artifact(args.curves)
    checkpoint.finish()


if __name__ == "__main__":
    stage(main)
