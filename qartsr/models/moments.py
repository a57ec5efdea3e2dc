"""GroupNorms that are torch modules: forward hooks see and replace what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qartsr.runtime.moments import Floats, GroupNorm, Moments, Seen, Statistics, affine, share


class ModuleNorms:
    """The norms of a model of modules, see :class:`qartsr.runtime.moments.Norms`."""

    def __init__(self, model: nn.Module) -> None:
        self._norms = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.GroupNorm)]

    def count(self) -> int:
        """How many there are."""
        return len(self._norms)

    def imposed(self, statistics: Statistics) -> AbstractContextManager[None]:
        """Outputs are replaced."""

        def hook(name: str) -> Callable[..., Any]:
            def replace(norm: nn.GroupNorm, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
                return _normalise(norm, inputs[0], statistics[name]) if name in statistics else output

            return replace

        return self._hooks(hook)

    def watched(self, weight: Floats, seen: Seen) -> AbstractContextManager[None]:
        """Inputs are measured."""

        def hook(name: str) -> Callable[..., None]:
            def record(norm: nn.GroupNorm, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                seen(name, _moments(norm, inputs[0], weight))

            return record

        return self._hooks(hook)

    @contextmanager
    def _hooks(self, hook: Callable[[str], Callable[..., Any]]) -> Iterator[None]:
        handles = [norm.register_forward_hook(hook(name)) for name, norm in self._norms]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _moments(norm: nn.GroupNorm, x: Tensor, weight: Floats) -> Any:
    """(2, G) float64 mean and mean square of ``x`` (1, C, h, w), or (1, C, h * w) as attention has it."""
    grouped = x.float().reshape(norm.num_groups, norm.num_channels // norm.num_groups, -1)
    part = torch.from_numpy(share(weight, x.shape[2:])).to(grouped)
    return torch.stack([grouped.mean(1) @ part, grouped.square().mean(1) @ part]).double().cpu().numpy()


def described(norm: nn.GroupNorm) -> GroupNorm:
    """Its numbers."""
    weight, bias = (np.asarray(value.detach().float().cpu()) for value in (norm.weight, norm.bias))
    return GroupNorm(norm.num_groups, norm.eps, weight, bias)


def _normalise(norm: nn.GroupNorm, x: Tensor, moments: Moments) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias, as one gain and one shift per channel."""
    both = torch.from_numpy(affine(described(norm), moments)).to(x.device)
    gain, shift = both.reshape(2, 1, -1, *(1 for _ in x.shape[2:]))
    return torch.addcmul(shift, x, gain).to(x.dtype)
