"""A quantized model on the test split: images, error maps, metrics against HR and against the FP output."""

from __future__ import annotations

from qartsr.config import load_params
from qartsr.evaluate import evaluate_quantized, meter
from qartsr.models import load_model
from qartsr.quantize import load_state
from qartsr.tracking import open_run
from qartsr.training.determinism import prepare
from stages._stage import arguments, stage


def main() -> None:
    """Write images, error maps and scores of one bit-width."""
    args = arguments(__doc__, "--model", "--state", "--data", "--reference", "--out", "--metrics", "--shown", bits=True)
    params = load_params(args.params)
    with open_run(params.profile, f"evaluate@{args.bits}", params.evaluate.model_dump()) as run:
        run.data("data", args.data, "testing")
        device = prepare(params.compute, params.compute.threads)
        model = load_model(args.model)
        load_state(model, args.state)
        measure = meter(params.evaluate.metrics, params.lpips, device)
        scores = evaluate_quantized(model.to(device), args.data, args.reference, args.out, measure)
        scores.write(args.out, args.metrics, args.shown)
        run.metrics(scores.tracked(), 0)
        run.artifact(args.out / "grid.png")
        run.artifact(args.out / "per_image.csv")


if __name__ == "__main__":
    stage(main)
