"""Recipe of the sample backbone, first step: the autoencoder, from a block transform."""

from __future__ import annotations

from qartsr.models import save_model
from qartsr.models.sd_unet import sample_backbone
from qartsr.tracking import open_run
from qartsr.training.autoencoder import Lesson, latents, train_autoencoder
from qartsr.training.recipe_figures import reconstructions
from stages._stage import arguments, stage
from stages.recipe._step import PROFILE, opened


def main() -> None:
    """Write the model folder (VAE trained, UNet not yet), curve, PSNR of reconstructions, and a picture of them."""
    args = arguments(__doc__, "--data", "--out", "--curves", "--metrics", "--picture", "--work")
    step = opened(args, "autoencoder", [])
    config = step.config.autoencoder
    model = sample_backbone(999, "none", step.config.seed)
    with open_run(PROFILE, "autoencoder", config.model_dump()) as run:
        curves, batches = step.curves(run), step.batches()
        lesson = Lesson("autoencoder", batches, step.config.seed, curves, step.checkpoint)
        train_autoencoder(model.vae, config, lesson)
        model.vae.register_to_config(scaling_factor=round(1 / float(latents(model.vae, batches, 128).std()), 4))
        save_model(model.requires_grad_(False), args.out)
        step.keep(args, run, curves, reconstructions(model, step.test(args.data)))
    step.checkpoint.finish()


if __name__ == "__main__":
    stage(main)
