"""Random weights under which activations stay finite: what a benchmark or a dry run needs of a model.

Convolutions and linear layers are normal with variance 1 / fan-in, so that each layer about keeps the variance of its
input; norms are 1 and biases 0, as at the start of a training.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qartsr.models import Backbone, blank


def random_tensor(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """The fp32 values of one tensor: a function of its name, its shape and ``seed``, whatever else is drawn."""
    if len(shape) < 2:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    digest = hashlib.sha256(f"{seed} {name} {shape}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    fan_in = 1 if name == "context" else math.prod(shape[1:])
    return torch.randn(shape, generator=generator).div_(math.sqrt(fan_in))


def random_model(described: Mapping[str, Any], seed: int, dtype: torch.dtype = torch.float32) -> Backbone:
    """The model in memory, in evaluation mode, with the values :func:`write_random_model` would store."""
    model = blank(described)
    for part_name, part in model.named_parts().items():
        prefix = f"{part_name}."
        state = {name: random_tensor(prefix + name, shape, seed).to(dtype) for name, shape in shapes(part).items()}
        part.load_state_dict(state, assign=True)
    model.context = random_tensor("context", tuple(model.context.shape), seed).to(dtype)
    return model.eval().requires_grad_(False)


def shapes(part: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of every stored tensor of a component."""
    return {name: tuple(value.shape) for name, value in part.state_dict().items()}
