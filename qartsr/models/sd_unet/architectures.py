"""The architectures we know by name, as :func:`qartsr.models.skeleton` takes them, at the paper's T = 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from qartsr.models.folder import architecture, blank
from qartsr.models.sd_unet.dloral import PUBLISHED, DLoRAL
from qartsr.models.sd_unet.sample import sample_backbone

_TIMESTEP = 1

_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "norm_num_groups": 32,
    "use_linear_projection": True,
}
_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 768,
    "scaling_factor": 0.18215,
}


def osediff() -> dict[str, Any]:
    """OSEDiff: UNet and VAE of Stable Diffusion 2.1-base (its unet/config.json and vae/config.json), empty prompt."""
    described = {"unet": _UNET, "vae": _VAE, "context": (1, 77, 1024), "timestep": _TIMESTEP, "align": "adain"}
    return architecture(blank(described))


def dloral() -> dict[str, Any]:
    """DLoRAL: OSEDiff's networks, the UNet with the latents of two frames, and what brings the first here."""
    unet = {**_UNET, "in_channels": 2 * _UNET["in_channels"]}
    parts = {"kind": DLoRAL.kind, "unet": unet, "vae": _VAE, "frames": PUBLISHED}
    return architecture(blank({**parts, "context": (1, 77, 1024), "timestep": _TIMESTEP, "align": "adain"}))


def sample() -> dict[str, Any]:
    """The sample backbone."""
    with torch.device("meta"):
        return architecture(sample_backbone(_TIMESTEP, "wavelet", seed=0))


ARCHITECTURES: Mapping[str, Callable[[], dict[str, Any]]] = {"osediff": osediff, "dloral": dloral, "sample": sample}
"""Name -> description, complete with every default of diffusers."""

_ENDS = (
    "unet.conv_in",
    "unet.conv_out",
    "unet.time_embedding.linear_1",
    "vae.quant_conv",
    "vae.post_quant_conv",
    "vae.encoder.conv_in",
    "vae.encoder.conv_out",
    "vae.decoder.conv_out",
)
_STRAIGHT = ("vae.*samplers.*", "vae.*.conv_shortcut")
"""what no residual path goes around in the VAE, at 8 bits in the sample profile (docs/log.md)"""
EDGE_LAYERS: Mapping[str, tuple[str, ...]] = {"osediff": _ENDS, "dloral": _ENDS, "sample": (*_ENDS, *_STRAIGHT)}
"""Name -> patterns of the layers that the complete parameter sets in ``configs/`` keep at 8 bits (a test compares)."""
