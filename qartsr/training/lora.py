"""Low-rank adapters for training: put on a model, named as OSEDiff names them, merged into the weights afterwards.

W + (alpha / rank) B A beside a frozen W; A (``down``) has the layer's own kernel, stride and padding, B (``up``) is
1 x 1. A starts Gaussian with standard deviation 1 / rank and B at 0, so a model with fresh adapters computes what it
computed without (2106.09685; layers and initial values as in OSEDiff).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from qartsr.config.retrain import AdaptersConfig
from qartsr.files import replacing
from qartsr.models import OneStepSR

Layer = nn.Conv2d | nn.Linear


class Adapted(nn.Module):
    """``base(x) + scale * up(down(x))``: a convolution or linear layer with an adapter beside it."""

    def __init__(self, base: Layer, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        inputs, outputs, *kernel = _shape(base)
        start = torch.randn(rank, inputs, *kernel, generator=generator) / rank
        self.down = nn.Parameter(start.to(base.weight))
        self.up = nn.Parameter(base.weight.new_zeros(outputs, rank, *(1 for _ in kernel)))

    def forward(self, x: Tensor) -> Tensor:
        """Same shapes as the layer's own."""
        base = self.base
        if isinstance(base, nn.Linear):
            return base(x) + self.scale * F.linear(F.linear(x, self.down), self.up)
        inner = F.conv2d(x, self.down, None, base.stride, base.padding, base.dilation)
        return base(x) + self.scale * F.conv2d(inner, self.up)

    def merged(self) -> Layer:
        """The layer alone, the adapter added to its weight."""
        with torch.no_grad():
            product = (self.up.flatten(1) @ self.down.flatten(1)).reshape(self.base.weight.shape)
            self.base.weight.add_(product, alpha=self.scale)
        return self.base


def _shape(base: Layer) -> tuple[int, ...]:
    if isinstance(base, nn.Linear):
        return base.in_features, base.out_features
    if base.groups != 1 or base.padding_mode != "zeros":
        raise ValueError("an adapter takes the place of a plain convolution only")
    return base.in_channels, base.out_channels, *base.kernel_size


def unet_layers(unet: nn.Module) -> list[str]:
    """The UNet's layers that OSEDiff adapts: all but those of the time embedding."""
    return [name for name in _layers(unet) if "time_emb" not in name]


def encoder_layers(vae: nn.Module) -> list[str]:
    """The VAE's layers that OSEDiff adapts: the encoder and quant_conv."""
    return [name for name in _layers(vae) if name.startswith("encoder.") or name == "quant_conv"]


def _layers(part: nn.Module) -> list[str]:
    return [name for name, module in part.named_modules() if isinstance(module, Layer)]


def adapt(part: nn.Module, names: list[str], config: AdaptersConfig, generator: torch.Generator) -> None:
    """Freeze ``part`` and put adapters, which train, on the layers ``names``. Reproducible from ``generator``."""
    part.requires_grad_(False)
    for name in names:
        layer = part.get_submodule(name)
        assert isinstance(layer, Layer)  # names come from the functions above
        part.set_submodule(name, Adapted(layer, config.rank, config.alpha / config.rank, generator))


def adapt_model(model: OneStepSR, config: AdaptersConfig, generator: torch.Generator) -> None:
    """Freeze ``model`` but for what OSEDiff trains: adapters of UNet and VAE encoder, and the UNet's conv_in whole."""
    model.requires_grad_(False)
    adapt(model.unet, unet_layers(model.unet), config, generator)
    adapt(model.vae, encoder_layers(model.vae), config, generator)
    model.unet.conv_in.requires_grad_(True)


def merge(model: nn.Module) -> None:
    """Put every adapted layer's own layer back, its weight changed by the adapter."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Adapted):
            model.set_submodule(name, module.merged())


def save_adapters(model: OneStepSR, config: AdaptersConfig, path: Path) -> None:
    """Write the adapters of ``model``, ``PART.LAYER.lora_A.weight`` and ``lora_B``, and ``base_layer`` of conv_in.

    These are the key names of OSEDiff's checkpoint without its adapters' names; ``rank`` and ``alpha`` stand in the
    metadata. Every key is a change of the model that training started with.
    """
    tensors: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, Adapted):
            tensors |= {f"{name}.lora_A.weight": module.down, f"{name}.lora_B.weight": module.up}
            whole = {f"{name}.base_layer.{key}": value for key, value in module.base.named_parameters()}
            tensors |= {key: value for key, value in whole.items() if key.startswith("unet.conv_in.")}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(plain, temporary, metadata={"rank": str(config.rank), "alpha": str(config.alpha)})
