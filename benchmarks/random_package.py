"""A packed model with random codes: what an engine is timed with, at any size, without quantizing anything.

Weights are spread evenly with variance 1 / fan-in, so that activations keep their size; inputs are on a grid that a
normed and activated value fills. Nothing can be said of the image that comes out.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qartsr.config import parse_bits
from qartsr.config.parts import MethodConfig
from qartsr.cost.package_size import header_of, package_size
from qartsr.models import OneStepSR
from qartsr.packing import PackedLayer
from qartsr.packing.structure import structure
from qartsr.quantize import plan
from qartsr.synthetic import blank, random_tensor

_LOW, _HIGH = -2.0, 4.0
"""Of the input grids."""


class RandomPackage(NamedTuple):
    """A model as :func:`qartsr.packing.load_package` gives it, and the bytes its file would have."""

    model: OneStepSR
    size: int


def random_package(described: dict[str, Any], method: MethodConfig, bits: str) -> RandomPackage:
    """The architecture, quantized by ``method`` to ``bits``, folded; a function of its arguments."""
    bare = blank(described)
    decided = plan(bare, method, parse_bits(bits))
    model = structure(header_of(bare, decided, {}), "the random package")
    layers = {name: part for name, part in model.named_modules() if isinstance(part, PackedLayer)}
    generator = torch.Generator().manual_seed(0)
    state = {name: _value(name, value, layers, generator) for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    return RandomPackage(model.requires_grad_(False).eval(), package_size(bare, decided, {}))


def _value(name: str, value: Tensor, layers: dict[str, PackedLayer], generator: torch.Generator) -> Tensor:
    owner, _, part = name.rpartition(".")
    layer = layers.get(owner.rpartition(".")[0])
    if layer is None:
        return random_tensor(name, tuple(value.shape), 0)
    return _of_layer(f"{owner.rpartition('.')[2]}.{part}", value.shape, layer, generator)


def _of_layer(part: str, shape: torch.Size, layer: PackedLayer, generator: torch.Generator) -> Tensor:
    fan_in = math.prod(layer.spec.shape[1:])
    if part.endswith(".codes"):
        return torch.randint(0, 256, tuple(shape), dtype=torch.uint8, generator=generator)
    if part == "weight.grid":
        return _grid(-math.sqrt(3 / fan_in), math.sqrt(3 / fan_in), layer.spec.weight_bits, shape)
    if part == "bias.grid":
        return _grid(-0.05, 0.05, layer.spec.bias_bits, shape)
    if part == "input.grid":
        return _grid(_LOW, _HIGH, layer.spec.input_bits, shape)
    if part == "transform.phi":
        return 0.8 + 0.4 * torch.rand(tuple(shape), generator=generator)
    return torch.randn(tuple(shape), generator=generator) / math.sqrt(fan_in) / 4


def _grid(low: float, high: float, bits: int, shape: torch.Size) -> Tensor:
    """(2, ...) scale and offset; 0 is one of the values, as in a learned range."""
    scale = (high - low) / (2**bits - 1)
    both = torch.tensor([scale, round(low / scale) * scale])
    return both.reshape(2, *(1,) * (len(shape) - 1)).expand(tuple(shape)).contiguous()
