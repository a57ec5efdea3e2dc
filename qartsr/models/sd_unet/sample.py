"""The sample backbone: OSEDiff's structure, small enough to train and quantize on two CPU cores.

What differs from Stable Diffusion beside the sizes: the VAE has no attention (over the 128 x 128 positions of a
512 x 512 picture it would take as long as all the rest) and normalises over one group; attention stands in the UNet's
lowest level and middle.
"""

from __future__ import annotations

import torch

from qartsr.models.sd_unet.diffusers_imports import AutoencoderKL, UNet2DConditionModel
from qartsr.models.sd_unet.model import SDUNet

LATENTS = 16
CONTEXT = (1, 4, 64)


def sample_backbone(timestep: int, align: str, seed: int) -> SDUNet:
    """An untrained model: VAE (16, 32, 64), f = 4; UNet (96, 96, 112); 5.6 M parameters. A function of ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(16, 32, 64),
            layers_per_block=1,
            latent_channels=LATENTS,
            norm_num_groups=1,
            sample_size=64,
            scaling_factor=1.0,
            mid_block_add_attention=False,
        )
        unet = UNet2DConditionModel(
            sample_size=32,
            in_channels=LATENTS,
            out_channels=LATENTS,
            layers_per_block=1,
            block_out_channels=(96, 96, 112),
            down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            attention_head_dim=4,
            cross_attention_dim=CONTEXT[-1],
            norm_num_groups=8,
            use_linear_projection=True,
        )
        context = torch.randn(CONTEXT)
    return SDUNet(unet, vae, context, timestep, align)
