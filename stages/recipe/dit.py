"""Recipe of the sample DiT: the transformer on the sample's autoencoder, taught by its UNet, then by pictures."""

from __future__ import annotations

import torch

from qartsr.data.clips import Scenes, stills
from qartsr.models import load_model, save_model
from qartsr.models.sd3_dit import sample_dit
from qartsr.models.sd_unet.diffusers_imports import AutoencoderKL
from qartsr.tracking import open_run
from qartsr.training.autoencoder import Lesson
from qartsr.training.determinism import generator
from qartsr.training.distributed import Share
from qartsr.training.flow import train_flow
from qartsr.training.recipe_figures import restored
from stages._stage import arguments, stage
from stages.recipe._step import PROFILE, opened


def main() -> None:
    """Write the model folder in fp16, curve, PSNR over bicubic, and a picture of held-out photographs."""
    args = arguments(__doc__, "--model", "--data", "--out", "--curves", "--metrics", "--picture", "--work")
    step = opened(args, "dit", [args.model])
    config, seed = step.config.dit, step.config.seed
    teacher = load_model(args.model).requires_grad_(False).to(step.device)
    vae = teacher.get_submodule("vae")
    assert isinstance(vae, AutoencoderKL)
    scenes = Scenes(step.pairs, step.device)

    def batches(share: Share) -> tuple[torch.Tensor, torch.Tensor]:
        return stills(scenes, share.batch, share.crop, generator(seed, "dit", share.number))

    model = sample_dit(vae, "none", seed).to(step.device)
    torch.set_float32_matmul_precision("high")
    with open_run(PROFILE, "dit", config.model_dump()) as run:
        curves = step.curves(run)
        train_flow(model, config, Lesson("dit", batches, seed, curves, step.checkpoint), teacher)
        save_model(model, args.out, torch.float16)
        step.keep(args, run, curves, restored(load_model(args.out), step.test(args.data)))
    step.checkpoint.finish()


if __name__ == "__main__":
    stage(main)
