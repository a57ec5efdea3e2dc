"""The sample DiT: Stable Diffusion 3's structure, small enough to quantize and measure on two CPU cores.

SD3.5's attention: queries and keys normalised, a second attention among the patches in the first two blocks. Patches
are 2 x 2 latent pixels, 8 x 8 of the picture's. The prompt is a fixed random tensor, as the UNet sample's.
"""

from __future__ import annotations

import torch
from torch import nn

from qartsr.models.sd3_dit.model import SD3DiT, joined_prompt
from qartsr.models.sd_unet.diffusers_imports import AutoencoderKL, SD3Transformer2DModel

TIMESTEP = 1000
"""What the transformer is told in its one step, as TSD-SR's."""
_TOKENS, _FEATURES, _POOLED = 4, 64, 32


def sample_dit(vae: AutoencoderKL, align: str, seed: int) -> SD3DiT:
    """An untrained model on a trained autoencoder: 7 blocks, 4 heads of 32; 4.3 M parameters. A function of ``seed``.

    What it predicts is 0, so it gives the autoencoder's own picture.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = SD3Transformer2DModel(
            sample_size=128,
            patch_size=2,
            in_channels=vae.config["latent_channels"],
            out_channels=vae.config["latent_channels"],
            num_layers=7,
            attention_head_dim=32,
            num_attention_heads=4,
            joint_attention_dim=_FEATURES,
            caption_projection_dim=128,
            pooled_projection_dim=_POOLED,
            pos_embed_max_size=192,
            dual_attention_layers=(0, 1),
            qk_norm="rms_norm",
        )
        tokens, pooled = torch.randn(1, _TOKENS, _FEATURES), torch.randn(1, _POOLED)
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    return SD3DiT(transformer, vae, joined_prompt(tokens, pooled), TIMESTEP, align)
