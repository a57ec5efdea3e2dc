"""The smallest one-step models, and how to quantize them in no time."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from qartsr.config import parse_bits
from qartsr.config.parts import LayerRecipe, MethodConfig
from qartsr.models import Backbone, fold_constants
from qartsr.models.sd_unet import SDUNet
from qartsr.quantize import Plan, apply, initialise, observe, plan, quant_layers, round_for_storage

QARTSR: dict[str, Any] = {
    "weight": {"kind": "lbq", "granularity": "channel"},
    "input": {"kind": "lbq"},
    "transform": {"kind": "channel_scale"},
    "skip": {"kind": "svd", "rank": 2},
    "adapter": {"kind": "lora", "rank": 2},
}


def tiny_model(align: str = "wavelet", seed: int = 0, attending: bool = False) -> SDUNet:
    """Random weights, two levels in VAE and UNet, sides in multiples of 4. ``attending``: not only in the middle."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(4, 8),
            latent_channels=4,
            norm_num_groups=2,
            sample_size=16,
            scaling_factor=1.0,
        )
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(8, 8),
            down_block_types=("CrossAttnDownBlock2D" if attending else "DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D" if attending else "UpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=6,
            norm_num_groups=2,
            use_linear_projection=True,
        )
        context = torch.randn(1, 3, 6)
    return SDUNet(unet, vae, context, 1, align).eval().requires_grad_(False)


def recipe(**changes: Any) -> LayerRecipe:
    """QArtSR's layer, some parts exchanged."""
    return LayerRecipe.model_validate({**QARTSR, **changes})


def trained(model: nn.Module) -> None:
    """As if trained: every trainable value moves a little, always in the same way."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in quant_layers(model).values():
            for parameter in layer.parameters():
                noise = torch.rand(parameter.shape, generator=generator) - 0.5
                parameter.add_(noise * 0.1 * parameter.abs().mean().clamp_min(0.05))
    round_for_storage(model)


def quantize(model: Backbone, bits: str, layer: LayerRecipe, **settings: Any) -> Plan:
    """Quantize and fold ``model`` in place, as the pipeline does; its plan."""
    decided = quantized(model, bits, layer, **settings)
    fold_constants(model)
    round_for_storage(model)
    return decided


def quantized(model: Backbone, bits: str, layer: LayerRecipe, **settings: Any) -> Plan:
    """Quantize ``model`` in place, without folding; its plan."""
    decided = plan(model, MethodConfig(name="test", layer=layer, **settings), parse_bits(bits))
    statistics = observe(model, [network_input(1)])
    apply(model, decided)
    initialise(model, statistics)
    trained(model)
    model.eval().requires_grad_(False)
    return decided


def network_input(seed: int = 2) -> torch.Tensor:
    """(1, 3, 16, 24) in [-1, 1]."""
    return torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(seed)) * 2 - 1
