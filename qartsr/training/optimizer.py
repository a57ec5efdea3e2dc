"""AdamW over named parameter groups, and its state as plain named tensors (no pickle)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

Schedule = Callable[[int], float]


class Group(NamedTuple):
    """Parameters that share a learning rate."""

    parameters: Sequence[tuple[str, Parameter]]
    lr: float


def cosine(steps: int, warmup: int) -> Schedule:
    """Linear warm-up to 1, then half a cosine to 0, as a factor of the learning rate."""
    return lambda step: min(1.0, (step + 1) / warmup) * 0.5 * (1.0 + math.cos(math.pi * step / max(steps, 1)))


def constant(step: int) -> float:
    """No schedule."""
    return 1.0


class Optimizer:
    """AdamW (betas 0.9, 0.99) with gradient clipping at norm 1 and a schedule. Groups with lr 0 are frozen."""

    def __init__(self, groups: Sequence[Group], weight_decay: float, schedule: Schedule) -> None:
        self._groups = [group for group in groups if group.lr > 0 and group.parameters]
        self._schedule = schedule
        settings = [{"params": [p for _, p in group.parameters], "lr": group.lr} for group in self._groups]
        self._adam = torch.optim.AdamW(settings, betas=(0.9, 0.99), weight_decay=weight_decay) if settings else None

    def named(self) -> dict[str, Parameter]:
        """Every trained parameter by name."""
        return {name: parameter for group in self._groups for name, parameter in group.parameters}

    def step(self, loss: Tensor, step: int) -> None:
        """Backward, clip, update. Nothing to train is legal: then nothing happens."""
        if self._adam is None:
            return
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.named().values()), 1.0)
        for settings, group in zip(self._adam.param_groups, self._groups, strict=True):
            settings["lr"] = group.lr * self._schedule(step)
        self._adam.step()

    def state(self) -> dict[str, Tensor]:
        """``value/NAME`` for each parameter and ``adam/NAME/KEY`` for its moments."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.named().items():
            tensors[f"value/{name}"] = parameter.detach()
            moments = self._adam.state.get(parameter, {}) if self._adam else {}
            tensors.update({f"adam/{name}/{key}": value for key, value in moments.items()})
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` returned."""
        for name, parameter in self.named().items():
            with torch.no_grad():
                parameter.copy_(tensors[f"value/{name}"])
            prefix = f"adam/{name}/"
            moments = {
                key.removeprefix(prefix): value.clone() for key, value in tensors.items() if key.startswith(prefix)
            }
            if moments and self._adam is not None:
                self._adam.state[parameter] = moments
