"""Recipe of the sample backbone, last step: OSEDiff's training of the UNet from the prior, in one step at index 999."""

from __future__ import annotations

import torch

from qartsr.config.data import RealESRGANConfig
from qartsr.config.training import LPIPSConfig
from qartsr.models import load_model, save_model
from qartsr.tracking import open_run
from qartsr.training.backbone import Recipe, train_backbone
from qartsr.training.batches import mixed
from qartsr.training.distributed import MicroBatching, World
from qartsr.training.recipe_figures import restored
from qartsr.training.transform_start import copying_layers, start_as_copy
from qartsr.training.vsd import NoRegulariser
from stages._stage import arguments, stage
from stages.recipe._step import PROFILE, opened


def main() -> None:
    """Write the model folder in fp16, curve, PSNR over bicubic, and a picture of held-out photographs."""
    args = arguments(__doc__, "--model", "--data", "--out", "--curves", "--metrics", "--picture", "--work")
    step = opened(args, "one_step", [args.model])
    config, seed = step.config.one_step, step.config.seed
    model = load_model(args.model).requires_grad_(False)
    model.timestep = config.timestep
    at = model.step
    start_as_copy(model.unet, (1 - at.latent) / at.prediction, config.timestep)  # Z_H = Z_L: no gain, no loss
    model.unet.requires_grad_(True)
    recipe = Recipe(
        "one_step", config.steps, config.phases, config.lr, config.warmup, config.weight_decay, config.loss,
        LPIPSConfig(), "none", autocast=config.autocast, latent=config.latent,
        slow=tuple(f"{model.denoiser}.{name}" for name in copying_layers(model.unet)), slowness=config.copying,
    )  # fmt: skip
    batches = mixed(step.pairs, RealESRGANConfig(), config.realesrgan, seed, "one_step")
    with open_run(PROFILE, "one_step", config.model_dump()) as run:
        curves, means = step.curves(run), MicroBatching(World(torch.device("cpu")))
        train_backbone(model, batches, recipe, NoRegulariser(), means, curves, step.checkpoint)
        save_model(model, args.out, torch.float16)
        step.keep(args, run, curves, restored(load_model(args.out), step.test(args.data)))
    step.checkpoint.finish()


if __name__ == "__main__":
    stage(main)
