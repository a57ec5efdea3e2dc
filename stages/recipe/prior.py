"""Recipe of the sample backbone, second step: the UNet becomes a diffusion prior of the autoencoder's latents."""

from __future__ import annotations

from qartsr.models import load_model, save_model
from qartsr.tracking import open_run
from qartsr.training.autoencoder import Lesson, train_prior
from qartsr.training.recipe_figures import denoised
from stages._stage import arguments, stage
from stages.recipe._step import PROFILE, opened


def main() -> None:
    """Write the model folder (UNet = prior), curve, error by timestep, and a picture of noised and denoised crops."""
    args = arguments(__doc__, "--model", "--data", "--out", "--curves", "--metrics", "--picture", "--work")
    step = opened(args, "prior", [args.model])
    config, model = step.config.prior, load_model(args.model).requires_grad_(False)
    with open_run(PROFILE, "prior", config.model_dump()) as run:
        curves = step.curves(run)
        train_prior(model, config, Lesson("prior", step.batches(), step.config.seed, curves, step.checkpoint))
        save_model(model, args.out)
        step.keep(args, run, curves, denoised(model, step.test(args.data)))
    step.checkpoint.finish()


if __name__ == "__main__":
    stage(main)
