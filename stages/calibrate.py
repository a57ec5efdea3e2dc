"""Cut the LR/HR pairs that quantization is calibrated and trained on."""

from __future__ import annotations

from qartsr.config import load_params
from qartsr.data import write_calibration
from qartsr.tracking import open_run
from stages._stage import arguments, stage


def main() -> None:
    """Write the pairs, their origins and a contact sheet."""
    args = arguments(__doc__, "--data", "--out")
    params = load_params(args.params)
    write_calibration(args.data, params.calibrate, params.data.degradation, params.seed, args.out)
    with open_run(params.profile, "calibrate", params.calibrate.model_dump()) as run:
        run.data("data", args.data, "training")
        run.metrics({"pairs": params.calibrate.pairs}, 0)
        run.artifact(args.out / "contact.png")


if __name__ == "__main__":
    stage(main)
