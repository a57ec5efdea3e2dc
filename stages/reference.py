"""Bicubic x4 and the floating-point model on the test split: what every quantized model is compared with."""

from __future__ import annotations

from qartsr.config import load_params
from qartsr.evaluate import evaluate_reference, meter
from qartsr.models import load_model
from qartsr.tracking import open_run
from qartsr.training.determinism import prepare
from stages._stage import arguments, stage


def main() -> None:
    """Write images, error maps and scores of both."""
    args = arguments(__doc__, "--model", "--data", "--out", "--bicubic", "--bicubic-shown", "--fp", "--fp-shown")
    params = load_params(args.params)
    with open_run(params.profile, "reference", params.evaluate.model_dump()) as run:
        run.data("data", args.data, "testing")
        device = prepare(params.compute, params.compute.threads)
        measure = meter(params.evaluate.metrics, params.lpips, device)
        files = {"bicubic": (args.bicubic, args.bicubic_shown), "fp": (args.fp, args.fp_shown)}
        scores = evaluate_reference(load_model(args.model).to(device), args.data, args.out, measure)
        for (subject, (metrics, shown)), result in zip(files.items(), scores, strict=True):
            result.write(args.out / subject, metrics, shown)
            run.metrics({f"{subject}_{name}": value for name, value in result.tracked().items()}, 0)
            run.artifact(args.out / subject / "grid.png", subject)
            run.artifact(args.out / subject / "per_image.csv", subject)


if __name__ == "__main__":
    stage(main)
