"""A one-step model and a Stable Diffusion UNet small enough to train in milliseconds, and a whole run of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from qartsr.config.retrain import AdaptersConfig, VSDConfig
from qartsr.config.training import CropPhase, ImageLossConfig, LPIPSConfig
from qartsr.models.sd_unet import SDUNet
from qartsr.training.adapter_layers import adapt_model
from qartsr.training.backbone import Recipe, train_backbone
from qartsr.training.batches import Batches
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.determinism import generator
from qartsr.training.distributed import MicroBatching, Share, World, init_distributed, relaunch_workers
from qartsr.training.loop import Curves
from qartsr.training.vsd import VSD

CPU = torch.device("cpu")
ALONE = MicroBatching(World(CPU))
ADAPTERS = AdaptersConfig(rank=2, alpha=4.0)
DISTILLATION = VSDConfig(weight=0.5, guidance=7.5)
CROP, BATCH = 32, 4


def unet(seed: int) -> UNet2DConditionModel:
    """4 latent channels, two levels, 12-dimensional prompts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=12,
            norm_num_groups=8,
            use_linear_projection=True,
        )


def one_step(seed: int = 0) -> SDUNet:
    """f = 2 between image and latent, T = 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        vae = AutoencoderKL(
            block_out_channels=(16, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=CROP,
        )
    return SDUNet(unet(seed), vae, embedding("context"), 1).eval()


def embedding(name: str) -> Tensor:
    """(1, 3, 12) prompt embedding."""
    return torch.randn(1, 3, 12, generator=generator(0, "prompt", name))


def vsd(config: VSDConfig = DISTILLATION, teacher: UNet2DConditionModel | None = None) -> VSD:
    """Random teacher and prompts; reproducible."""
    return VSD(teacher or unet(7), embedding("context"), embedding("negative"), config, ADAPTERS, (0, "tiny"))


def recipe(steps: int, autocast: str = "none") -> Recipe:
    """OSEDiff's, with a larger step."""
    return Recipe(
        "tiny", steps, [CropPhase(share=1.0, batch=BATCH, crop=CROP)], 1e-3, 2, 1e-2,
        ImageLossConfig(lpips=0.0, mse=1.0, l1=1.0), LPIPSConfig(), "none", "constant", (0.9, 0.999), autocast, True,
    )  # fmt: skip


def batches(share: Share) -> tuple[Tensor, Tensor]:
    """Smooth random images and their blurred twins, each drawn by its place in the batch."""
    hr = torch.stack([_image(share.number, index) for index in range(share.start, share.stop)])
    return hr, torch.nn.functional.avg_pool2d(hr, 5, 1, 2, count_include_pad=False)


def _image(number: int, index: int) -> Tensor:
    small = torch.rand(1, 3, 8, 8, generator=generator(0, "image", number, index)) * 2 - 1
    return torch.nn.functional.interpolate(small, (CROP, CROP), mode="bicubic").clamp(-1, 1)[0]


def run(
    folder: Path, steps: int, means: MicroBatching = ALONE, source: Batches = batches, autocast: str = "none"
) -> SDUNet:
    """Adapters and VSD trained; the checkpoint of the last step stays in ``folder``."""
    model = one_step()
    adapt_model(model, ADAPTERS, generator(0, "adapters"))
    regulariser = vsd()
    if means.checkpointing:
        regulariser.student.enable_gradient_checkpointing()
    checkpoint = Checkpoint(folder, 0.0, means.world.is_main_process)
    curves = Curves(lambda values, step: None)
    train_backbone(model, source, recipe(steps, autocast), regulariser, means, curves, checkpoint)
    return model


def work(folder: str, steps: str, held: str) -> None:
    """What each of several launched processes does. ``held``: images at once."""
    torch.set_num_threads(1)
    with init_distributed(CPU) as world:
        run(Path(folder), int(steps), MicroBatching(world, int(held)))


def main() -> None:
    """Work in the processes of a launcher; without one, launch two, forked: imports take longer than the training.

    A fourth word is a number of processes, launched as a stage launches them.
    """
    if len(sys.argv) > 4 and relaunch_workers("tests.training.tiny", int(sys.argv[4])):
        return
    if "WORLD_SIZE" in os.environ:
        work(*sys.argv[1:4])
    else:
        pair = LaunchConfig(
            1, 1, 2, run_id="pair", rdzv_endpoint="localhost:0", rdzv_backend="c10d", start_method="fork"
        )
        elastic_launch(pair, work)(*sys.argv[1:])


if __name__ == "__main__":
    main()
