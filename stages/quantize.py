"""RPQ: quantize the retrained model module by module, from the output to the input."""

from __future__ import annotations

from qartsr.config import load_params, parse_bits
from qartsr.data import load_calibration
from qartsr.data.pairs import to_unit
from qartsr.models import load_model
from qartsr.quantize import observe, patches_needed, plan, save_state
from qartsr.tracking import open_run
from qartsr.training.checkpoint import Checkpoint, scratch_folder
from qartsr.training.curves import Curves
from qartsr.training.determinism import prepare
from qartsr.training.optimizer import Setting
from qartsr.training.rpq import reconstruct
from stages._stage import arguments, stage


def main() -> None:
    """Write the quantized state, its plan and the loss curve of every module."""
    args = arguments(__doc__, "--model", "--calibration", "--out", "--curves", "--work", bits=True)
    params = load_params(args.params)
    bits, device = parse_bits(args.bits), prepare(params.compute, params.compute.threads)
    setting = Setting(params.lpips, params.backbone.train_align, params.precision[args.bits].lr_scale, params.seed)
    settings = [args.bits, params.method.model_dump(), params.quantize.model_dump(), *map(str, setting)]
    folder = scratch_folder(args.work, f"quantize-{bits}", "stages.quantize", settings, [args.model, args.calibration])
    checkpoint = Checkpoint(folder, params.compute.checkpoint_seconds)
    teacher = load_model(args.model).to(device)
    lq = to_unit(load_calibration(args.calibration).lq).to(device)
    decided = plan(teacher, params.method, bits, lq)
    with open_run(params.profile, f"quantize@{bits}", params.quantize.model_dump()) as run:
        curves = Curves(run.metrics)
        statistics = observe(teacher, lq.split(8), patches_needed(decided))
        student = reconstruct(teacher, decided, statistics, lq, params.quantize, setting, curves, checkpoint)
        save_state(student, decided, args.out)
        curves.write(args.curves)
        run.artifact(args.curves)
    checkpoint.finish()


if __name__ == "__main__":
    stage(main)
