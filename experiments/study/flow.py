"""The transformer's flow in several steps, with input bits of their own at each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from experiments.study.measure import Judge, means
from qartsr.config import parse_bits
from qartsr.config.experiment import FlowStepsConfig
from qartsr.config.parts import MethodConfig
from qartsr.models.sd3_dit import SD3DiT
from qartsr.quantize import look, plan, quant_layers, quantize
from qartsr.quantize.bit_budgets import scheduled_bits
from qartsr.quantizers.gaussian import TokenGaussian

Schedule = Mapping[str, Sequence[int]]
"""layer -> bits of its input at each step"""


class InSteps:
    """``model``'s flow from Z_L (t = 1) to Z_H (t = 0) in ``steps`` equal Euler steps x <- x - v / steps.

    Layers that the schedule does not name keep their bits, and all have them again afterwards.
    """

    def __init__(self, model: SD3DiT, steps: int, schedule: Schedule | None = None) -> None:
        self.model, self.steps, self._schedule = model, steps, schedule or {}
        self._inputs = {name: each for name, each in followed(model).items() if name in self._schedule}

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.model.device

    @torch.no_grad()
    def denoise(self, z_l: Tensor) -> Tensor:
        """Z_L (B, C, h, w) -> Z_H."""
        x, own = z_l, {name: each.levels for name, each in self._inputs.items()}
        try:
            for number in range(self.steps):
                for name, each in self._inputs.items():
                    each.levels = 2 ** self._schedule[name][number] - 1
                t = x.new_full((len(x),), 1000 * (1 - number / self.steps))
                x = x - self.model.velocity(x, t) / self.steps
        finally:
            for name, each in self._inputs.items():
                each.levels = own[name]
        return x

    def restore(self, lq: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> restored, as large."""
        return self.model.decode(self.denoise(self.model.encode(lq)))


def followed(model: nn.Module) -> dict[str, TokenGaussian]:
    """Input quantizers whose grid follows every token: their bits may change from step to step."""
    inputs = {name: layer.input_quantizer for name, layer in quant_layers(model).items()}
    return {name: each for name, each in inputs.items() if isinstance(each, TokenGaussian)}


def mean_squares(model: SD3DiT, steps: int, lq: Tensor) -> dict[str, list[float]]:
    """v_t of every layer that can follow: the mean square of its input at each step, for ``lq`` (N, 3, H, W)."""
    found: dict[str, list[float]] = {name: [] for name in followed(model)}

    def note(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[name].append(float(inputs[0].double().square().mean()))

        return hook

    handles = [each.register_forward_pre_hook(note(name)) for name, each in followed(model).items()]
    try:
        InSteps(model, steps).restore(lq)
    finally:
        for handle in handles:
            handle.remove()
    return found


def bits_by_step(model: SD3DiT, squares: Mapping[str, Sequence[float]], stretches: int) -> Schedule:
    """VaTMP: every layer's bits at each step, constant within at most ``stretches`` stretches, its own in the mean."""
    own = {name: each.levels.bit_length() for name, each in followed(model).items()}
    return {name: scheduled_bits(each, own[name], stretches) for name, each in squares.items()}


def spread(
    flow: FlowStepsConfig, method: MethodConfig, bits: str, teacher: SD3DiT, judge: Judge, inputs: Sequence[Tensor]
) -> dict[str, list[dict[str, float]]]:
    """Scores by way to spread the bits, one for each of ``inputs`` (N, 3, H, W), the calibration pairs of a seed.

    Means over all sets, and ``varied``, the percentage of the layers whose bits vary.
    """
    kinds = {"uniform": 1, f"VaTMP, {flow.stretches} stretches": flow.stretches, "VaTMP, any": flow.steps}
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for lq in inputs:
        decided = plan(teacher, method, parse_bits(bits), lq)
        student = quantize(teacher, decided, look(teacher, decided, lq))
        squares = mean_squares(student, flow.steps, lq)
        for kind, stretches in kinds.items():
            schedule = bits_by_step(student, squares, stretches)
            images = judge.images(InSteps(student, flow.steps, schedule))
            varied = 100 * sum(len(set(each)) > 1 for each in schedule.values()) / len(schedule)
            found[kind].append(means(judge.scores(images))["all"] | {"varied": varied})
    return found
