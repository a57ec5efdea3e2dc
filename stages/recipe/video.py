"""Recipe of the model of clips: the image model, trained on with the frame before in its channels."""

from __future__ import annotations

import torch

from qartsr.data.clips import Clips, Motion, Scenes, moving_clips
from qartsr.models import load_model, save_model
from qartsr.models.sd_unet.video import video_backbone
from qartsr.tracking import open_run
from qartsr.training.determinism import generator
from qartsr.training.recipe_figures import compared
from qartsr.training.video import train_video
from stages._stage import arguments, stage
from stages.recipe._step import PROFILE, opened


def main() -> None:
    """Write the model folder in fp16, curve, figures beside the image model's, and a picture of slices through time."""
    args = arguments(__doc__, "--model", "--data", "--out", "--curves", "--metrics", "--picture", "--work")
    step = opened(args, "video", [args.model])
    config, seed = step.config.video, step.config.seed
    motion = Motion(3, config.speed, config.noisy, config.noise, config.begins)
    scenes = Scenes(step.pairs, step.device)

    def batches(number: int, batch: int, crop: int) -> Clips:
        return moving_clips(scenes, batch, crop, motion, generator(seed, "video", number))

    model = video_backbone(load_model(args.model)).to(step.device)
    model.timestep = config.timestep
    with open_run(PROFILE, "video", config.model_dump()) as run:
        curves = step.curves(run)
        train_video(model, config, batches, curves, step.checkpoint)
        save_model(model, args.out, torch.float16)
        step.keep(args, run, curves, compared(load_model(args.out), load_model(args.model), step.test(args.data)))
    step.checkpoint.finish()


if __name__ == "__main__":
    stage(main)
