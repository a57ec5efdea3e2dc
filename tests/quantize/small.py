"""A small diffusers UNet and VAE as a backbone."""

from __future__ import annotations

import functools
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from qartsr.config import Bits
from qartsr.config.parts import MethodConfig
from qartsr.models.sd_unet import SDUNet
from qartsr.quantize import Plan, Statistics, apply, initialise, observe, plan

LAYER: dict[str, Any] = {
    "weight": {"kind": "lbq", "granularity": "channel", "init": "mse"},
    "input": {"kind": "lbq", "init": "mse"},
    "transform": {"kind": "channel_scale"},
    "skip": {"kind": "svd", "rank": 2},
    "adapter": {"kind": "lora", "rank": 2},
}


class Small(SDUNet):
    """Two levels each."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16),
            norm_num_groups=4,
        )
        unet = UNet2DConditionModel(
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=8,
            norm_num_groups=4,
        )
        super().__init__(unet, vae, torch.randn(1, 3, 8), 1)


def small() -> Small:
    return Small().eval().requires_grad_(False)


def batches() -> list[Tensor]:
    return list((torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1).split(2))


def method(**changes: Any) -> MethodConfig:
    layer = {**LAYER, **changes.pop("layer", {})}
    return MethodConfig.model_validate({"name": "test", "layer": layer, **changes})


@functools.cache
def statistics_of_small() -> Statistics:
    return observe(small(), batches())


W4A4 = Bits(4, 4)


def quantized(bits: Bits = W4A4, **changes: Any) -> tuple[Small, Plan, Statistics]:
    model, statistics = small(), statistics_of_small()
    decided = plan(model, method(**changes), bits)
    apply(model, decided)
    initialise(model, statistics)
    return model, decided, statistics
