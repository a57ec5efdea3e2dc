"""AdamW over named parameter groups, and its state as plain named tensors (no pickle)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim.adamw import adamw  # the function: torch's class loads TorchDynamo, two seconds of every start

from qartsr.config.training import LPIPSConfig
from qartsr.errors import QartsrError
from qartsr.training.distributed import World

Schedule = Callable[[int], float]
Losses = Callable[[int], dict[str, Tensor]]
"""Losses of the step with this number, among them ``total``."""
PartLosses = Callable[[int, slice], dict[str, Tensor]]
"""The same of a part of the step's samples."""


class Setting(NamedTuple):
    """What every training depends on beside their own configuration."""

    lpips: LPIPSConfig
    align: str
    lr_scale: float
    seed: int


class Group(NamedTuple):
    """Parameters that share a learning rate."""

    parameters: Sequence[tuple[str, Parameter]]
    lr: float


def cosine(steps: int, warmup: int) -> Schedule:
    """Linear warm-up to 1, then half a cosine to 0, as a factor of the learning rate."""
    return lambda step: min(1.0, (step + 1) / warmup) * 0.5 * (1.0 + math.cos(math.pi * step / max(steps, 1)))


def level(warmup: int) -> Schedule:
    """Linear warm-up to 1, then no change."""
    return lambda step: min(1.0, (step + 1) / warmup)


def constant(step: int) -> float:
    """No schedule."""
    return 1.0


class Optimizer:
    """AdamW with gradient clipping at norm 1 and a schedule. Groups with lr 0 are frozen.

    Of several processes each gives its gradient; all take the same step, with the mean of them. Raises ValueError where
    a parameter or a name stands twice.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        weight_decay: float,
        schedule: Schedule,
        betas: tuple[float, float] = (0.9, 0.99),
        world: World | None = None,
    ) -> None:
        self._groups = [group for group in groups if group.lr > 0 and group.parameters]
        self._schedule, self._world = schedule, world or World(torch.device("cpu"))
        self._betas, self._weight_decay = betas, weight_decay
        stand = [each for group in self._groups for each in group.parameters]
        if len(stand) != min(len({name for name, _ in stand}), len({parameter for _, parameter in stand})):
            raise ValueError("a parameter or a name stands twice")
        self._moments: dict[Parameter, dict[str, Tensor]] = {}

    def named(self) -> dict[str, Parameter]:
        """Every trained parameter by name."""
        return {name: parameter for group in self._groups for name, parameter in group.parameters}

    def zero(self) -> None:
        """Forget the gradients."""
        for parameter in self.named().values():
            parameter.grad = None

    def update(self, step: int) -> None:
        """Average over the processes, clip, update. Nothing to train is legal: then nothing happens."""
        parameters = list(self.named().values())
        if not parameters:
            return
        self._world.average([parameter.grad for parameter in parameters if parameter.grad is not None])
        self._step(step)

    @torch.no_grad()
    def _step(self, step: int) -> None:
        torch.nn.utils.clip_grad_norm_(list(self.named().values()), 1.0)
        for group in self._groups:
            moved = [parameter for _, parameter in group.parameters if parameter.grad is not None]
            moments = [self._moments.get(parameter) or self._begun(parameter) for parameter in moved]
            means, squares, steps = ([each[key] for each in moments] for key in ("exp_avg", "exp_avg_sq", "step"))
            adamw(
                [*moved], [parameter.grad for parameter in moved if parameter.grad is not None],
                means, squares, [], steps, amsgrad=False, beta1=self._betas[0], beta2=self._betas[1],
                lr=group.lr * self._schedule(step), weight_decay=self._weight_decay, eps=1e-8, maximize=False,
            )  # fmt: skip

    def _begun(self, parameter: Parameter) -> dict[str, Tensor]:
        """Moments before the parameter's first step, under the names that torch's AdamW gives them."""
        zeros = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
        self._moments[parameter] = {"step": torch.zeros((), dtype=torch.float32), **zeros}
        return self._moments[parameter]

    def descent(self, losses: Losses) -> Losses:
        """A step that computes ``losses``, descends along ``total`` and returns them."""

        def step(number: int) -> dict[str, Tensor]:
            found = losses(number)
            if self._groups:
                self.zero()
                found["total"].backward()
                self.update(number)
            return found

        return step

    def shared_descent(self, losses: PartLosses, batch: int, parts: int) -> Losses:
        """The same where the batch falls into ``parts`` equal ones, which the processes divide among themselves.

        The gradient is the mean over the parts, summed in their order: the result depends on their number, and on the
        number of processes, a divisor of it, in no bit. Raises QartsrError when the batch has no such parts.
        """
        world, size = self._world, batch // parts
        if batch % parts or parts % world.size:
            what = f"a batch of {batch} in {parts} parts cannot be shared by {world.size} processes"
            raise QartsrError(what, "params.yaml", "make `parts` a divisor of the batch, and of it the processes")
        if parts == 1:
            return self.descent(lambda number: losses(number, slice(0, batch)))

        def step(number: int) -> dict[str, Tensor]:
            total: Tensor | None = None
            for first in range(0, parts, world.size):
                start = (first + world.rank) * size
                self.zero()
                found = losses(number, slice(start, start + size))
                if self._groups:
                    found["total"].backward()
                with_gradient = [p for p in self.named().values() if p.grad is not None]
                values = [value.detach().float().reshape(1) for value in found.values()]
                flat = torch.cat([*(p.grad.reshape(-1) for p in with_gradient if p.grad is not None), *values])
                for each in world.gathered(flat):
                    total = each if total is None else total + each
            assert total is not None
            return self._descend(number, total / parts, with_gradient, list(found))

        return step

    def _descend(
        self, number: int, mean: Tensor, with_gradient: list[Parameter], names: list[str]
    ) -> dict[str, Tensor]:
        """The update by the gradient in ``mean``, which all processes have; behind it stand the losses."""
        sizes = [parameter.numel() for parameter in with_gradient]
        *gradients, losses = mean.split([*sizes, len(names)])
        for parameter, gradient in zip(with_gradient, gradients, strict=True):
            parameter.grad = gradient.reshape(parameter.shape).clone()
        self._step(number)
        return dict(zip(names, losses.unbind(), strict=True))

    def state(self) -> dict[str, Tensor]:
        """``value/NAME`` for each parameter and ``adam/NAME/KEY`` for its moments."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.named().items():
            tensors[f"value/{name}"] = parameter.detach()
            moments = self._moments.get(parameter, {})
            tensors.update({f"adam/{name}/{key}": value for key, value in moments.items()})
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` returned."""
        for name, parameter in self.named().items():
            with torch.no_grad():
                parameter.copy_(tensors[f"value/{name}"])
            prefix = f"adam/{name}/"
            moments = {
                key.removeprefix(prefix): _like(parameter, value)
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
            if moments:
                self._moments[parameter] = moments


def _like(parameter: Parameter, value: Tensor) -> Tensor:
    """A copy on the parameter's device; AdamW's step count, a scalar, stays on the CPU."""
    return value.to(parameter.device, copy=True) if value.shape == parameter.shape and value.ndim else value.clone()


class Optimizers:
    """Several optimizers of different parameters (names differ too), begun, stepped and saved together."""

    def __init__(self, *optimizers: Optimizer) -> None:
        self._all = optimizers

    def zero(self) -> None:
        """Forget all gradients."""
        for optimizer in self._all:
            optimizer.zero()

    def update(self, step: int) -> None:
        """Each averages, clips and updates its own."""
        for optimizer in self._all:
            optimizer.update(step)

    def state(self) -> dict[str, Tensor]:
        """The states of all."""
        return {name: value for optimizer in self._all for name, value in optimizer.state().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` returned."""
        for optimizer in self._all:
            optimizer.restore(tensors)
