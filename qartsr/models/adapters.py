"""LoRA as low-rank paths beside their layers: y = layer(x) + scale * up(down(x)); attached, trained, folded away.

An adapted component has the parameter names that peft gives it, so the keys of OSEDiff's checkpoint are its keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from qartsr.errors import QartsrError

ALPHA = 8.0
"""peft's default ``lora_alpha``, which OSEDiff never sets: W + (8 / rank) B A."""
PUBLISHED = "use the published osediff.pkl"
_TOGETHER = "check that base and LoRA belong together"


def unpickled(path: Path, what: str, do: str) -> Any:
    """What torch saved in ``path``, on the CPU, read without running code. Raises QartsrError: no usable ``what``."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling damaged bytes may raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise QartsrError(f"is not a usable {what} ({reason})", str(path), do) from error


class Adapters(NamedTuple):
    """The trained weights of one component."""

    rank: int
    state: dict[str, Tensor]
    """by the checkpoint's own keys, which are those of the adapted component"""
    where: str
    """file and field, for errors"""
    alpha: float = ALPHA


class Adapted(nn.Module):
    """A convolution or linear layer with one low-rank path per adapter, each times ``alpha`` / ``rank``.

    A path's first half has the layer's kernel, stride and padding and ``rank`` outputs; its second half is pointwise.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, rank: int, alpha: float = ALPHA) -> None:
        super().__init__()
        self.base_layer, self.rank, self.scale = layer, rank, alpha / rank
        self.lora_A, self.lora_B = nn.ModuleDict(), nn.ModuleDict()

    def add(self, adapter: str) -> None:
        """A new path, equal to zero."""
        layer = self.base_layer
        down: nn.Module
        up: nn.Conv2d | nn.Linear
        if isinstance(layer, nn.Conv2d):
            geometry = {"kernel_size": layer.kernel_size, "stride": layer.stride, "padding": layer.padding}
            down = nn.Conv2d(layer.in_channels, self.rank, bias=False, **geometry)  # type: ignore[arg-type]
            up = nn.Conv2d(self.rank, layer.out_channels, 1, bias=False)
        else:
            down = nn.Linear(layer.in_features, self.rank, bias=False)
            up = nn.Linear(self.rank, layer.out_features, bias=False)
        nn.init.zeros_(up.weight)
        self.lora_A[adapter], self.lora_B[adapter] = down.to(layer.weight), up.to(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output plus that of every path; shapes are the layer's."""
        y: Tensor = self.base_layer(x)
        for adapter, down in self.lora_A.items():
            y = y + self.lora_B[adapter](down(x)) * self.scale
        return y

    def delta(self) -> Tensor:
        """What the paths add to the layer's weight, in its shape."""
        total = torch.zeros_like(self.base_layer.weight)
        for adapter, down in self.lora_A.items():
            up = self.lora_B[adapter].get_parameter("weight")
            product = up.flatten(1) @ down.get_parameter("weight").flatten(1)
            total += product.reshape(total.shape) * self.scale
        return total


def attach(part: nn.Module, adapters: Adapters) -> None:
    """Give ``part`` the checkpoint's low-rank paths and wholly trained weights, in place.

    Every key must name a weight and fit it. Raises QartsrError naming the first that does not; ``part`` is then no
    longer usable.
    """
    for key in adapters.state:
        if ".lora_A." in key:
            module, _, rest = key.partition(".lora_A.")
            _adapted(part, module, key, adapters).add(rest.removesuffix(".weight"))
    weights = dict(part.named_parameters())
    with torch.no_grad():
        for key, value in adapters.state.items():
            if key not in weights:
                raise QartsrError(f"key {key!r} names no layer of the model", adapters.where, _TOGETHER)
            if weights[key].shape != value.shape:
                shapes = f"{tuple(value.shape)}, the model {tuple(weights[key].shape)} at rank {adapters.rank}"
                raise QartsrError(f"key {key!r} has shape {shapes}", adapters.where, _TOGETHER)
            weights[key].copy_(value)
    for key in weights:
        if ".lora_" in key and key not in adapters.state:
            raise QartsrError(f"lacks the key {key!r}", adapters.where, PUBLISHED)


def _adapted(part: nn.Module, module: str, key: str, adapters: Adapters) -> Adapted:
    try:
        layer = part.get_submodule(module)
    except AttributeError:
        layer = None
    if isinstance(layer, nn.Conv2d | nn.Linear):
        layer = Adapted(layer, adapters.rank, adapters.alpha)
        part.set_submodule(module, layer)
    if not isinstance(layer, Adapted):
        raise QartsrError(f"key {key!r} names no layer of the model", adapters.where, _TOGETHER)
    return layer


def fold(part: nn.Module) -> None:
    """Merge every low-rank path into its layer's weight and put the plain layers back, in place."""
    adapted = [(name, layer) for name, layer in part.named_modules() if isinstance(layer, Adapted)]
    with torch.no_grad():
        for name, layer in adapted:
            layer.base_layer.weight += layer.delta()
            part.set_submodule(name, layer.base_layer)
