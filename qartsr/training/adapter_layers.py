"""Low-rank adapters for training, where OSEDiff has them, under the names of its checkpoint.

W + (alpha / rank) B A beside a frozen W. A starts Gaussian with standard deviation 1 / rank and B at 0, so a model with
fresh adapters computes what it computed without (2106.09685; layers and initial values as in OSEDiff).
:func:`qartsr.models.adapters.fold` merges them afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from qartsr.config.retrain import AdaptersConfig
from qartsr.files import replacing
from qartsr.models import Backbone
from qartsr.models.adapters import Adapted

Layer = nn.Conv2d | nn.Linear


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


def adapt_model(model: Backbone, config: AdaptersConfig, generator: torch.Generator) -> None:
    """Freeze ``model`` but for its adapters and the layers it trains whole (OSEDiff: the UNet's first)."""
    adapt(model, model.lora_targets(), config, generator)
    for name in model.trained_whole:
        model.get_submodule(name).requires_grad_(True)


def save_adapters(model: Backbone, config: AdaptersConfig, path: Path) -> None:
    """Write what OSEDiff's checkpoint would hold, each key after its component: ``unet.KEY`` and ``vae.KEY``.

    ``rank`` and ``alpha`` stand in the metadata, as JSON under one key: safetensors gives several keys no fixed order,
    and the same adapters have to be the same bytes. :func:`qartsr.models.adapters.attach` takes a component's keys.
    """
    whole = tuple(f"{name}." for name in model.trained_whole)
    tensors = {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if ".lora_" in name or name.startswith(whole)
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"adapters": json.dumps({"rank": config.rank, "alpha": config.alpha})})
