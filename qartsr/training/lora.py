"""Low-rank adapters for training, where OSEDiff has them, under the names of its checkpoint.

W + (alpha / rank) B A beside a frozen W. A starts Gaussian with standard deviation 1 / rank and B at 0, so a model with
fresh adapters computes what it computed without (2106.09685; layers and initial values as in OSEDiff).
:func:`qartsr.models.adapters.fold` merges them afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from qartsr.config.retrain import AdaptersConfig
from qartsr.files import replacing
from qartsr.models import OneStepSR
from qartsr.models.adapters import Adapted

Layer = nn.Conv2d | nn.Linear


def unet_layers(unet: nn.Module) -> dict[str, str]:
    """The UNet's layers that OSEDiff adapts, all but those of the time embedding -> the name of their adapter."""
    return {name: _place(name) for name in _layers(unet) if "time_emb" not in name}


def _place(name: str) -> str:
    if "down_blocks" in name or "conv_in" in name:
        return "default_encoder"
    return "default_decoder" if "up_blocks" in name or "conv_out" in name else "default_others"


def encoder_layers(vae: nn.Module) -> dict[str, str]:
    """The VAE's layers that OSEDiff adapts, the encoder and quant_conv -> the name of their adapter."""
    return {n: "default_encoder" for n in _layers(vae) if n.startswith("encoder.") or n == "quant_conv"}


def _layers(part: nn.Module) -> list[str]:
    return [name for name, module in part.named_modules() if isinstance(module, Layer)]


def adapt(part: nn.Module, layers: Mapping[str, str], config: AdaptersConfig, generator: torch.Generator) -> None:
    """Freeze ``part`` and give ``layers`` adapters, which train. Reproducible from ``generator``."""
    part.requires_grad_(False)
    for name, adapter in layers.items():
        layer = part.get_submodule(name)
        assert isinstance(layer, Layer)  # names come from the functions above
        adapted = Adapted(layer, config.rank, config.alpha)
        adapted.add(adapter)
        down = adapted.lora_A[adapter].get_parameter("weight")
        with torch.no_grad():
            down.copy_(torch.randn(down.shape, generator=generator) / config.rank)
        part.set_submodule(name, adapted)


def adapt_model(model: OneStepSR, config: AdaptersConfig, generator: torch.Generator) -> None:
    """Freeze ``model`` but for what OSEDiff trains: adapters of UNet and VAE encoder, and the UNet's conv_in whole."""
    model.requires_grad_(False)
    adapt(model.unet, unet_layers(model.unet), config, generator)
    adapt(model.vae, encoder_layers(model.vae), config, generator)
    model.unet.conv_in.requires_grad_(True)


def save_adapters(model: OneStepSR, config: AdaptersConfig, path: Path) -> None:
    """Write what OSEDiff's checkpoint would hold, each key after its component: ``unet.KEY`` and ``vae.KEY``.

    ``rank`` and ``alpha`` stand in the metadata. :func:`qartsr.models.adapters.attach` takes the keys of a component.
    """
    tensors = {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if ".lora_" in name or name.startswith("unet.conv_in.")
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"rank": str(config.rank), "alpha": str(config.alpha)})
