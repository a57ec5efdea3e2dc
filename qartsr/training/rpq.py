"""RPQ: reversed per-module quantization (QArtSR, section 3.3).

From the output to the input, one module after the other becomes quantized. While module k is quantized it and all
modules quantized before it train on

    L = a1 LPIPS(I_q, I_fp) + a2 MSE(I_q, I_fp) + w MSE(M_q(x), M_fp(x)) / Var(M_fp(x))      (Eq. 7 and 8)

where x is the input of module k in the floating-point model. Everything upstream of x is the teacher's, so it is
computed once (:mod:`qartsr.training.teacher_cache`). The variance makes modules of different scale comparable; the
paper does not give the weight of the module loss.

In another ``order`` (ours, :func:`module_order`) x is what reaches module k from the first module that is
quantized by then; the rest stays the same.

``image_every: n`` (ours) computes the image loss on every n-th step only. The other steps stop behind module k: they
train what stands between x and its output, on cached pairs, and the image loss goes on to train the rest.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from qartsr.config.method import ModuleOrder, ModulesPhase
from qartsr.files import read_json, write_json
from qartsr.losses import ImageLoss
from qartsr.models import Backbone, Segment, align, run_segments
from qartsr.quantize import Plan, Statistics, apply, initialise, quantize
from qartsr.training.checkpoint import Checkpoint, intact, seal
from qartsr.training.determinism import sample
from qartsr.training.distributed import ALONE, World
from qartsr.training.loop import Curves, Run, fit, resume
from qartsr.training.optimizer import Optimizer, PartLosses, Setting, constant
from qartsr.training.param_groups import groups, put_back, values
from qartsr.training.teacher_cache import ActivationCache

_BATCH = 8


def module_order(
    kind: ModuleOrder,
    teacher: Backbone,
    plan: Plan,
    statistics: Statistics,
    cuts: ActivationCache,
    sequence: tuple[Segment, ...],
) -> list[int]:
    """Indices into ``sequence``: ``reverse`` is the paper's (QArtSR, section 3.3), from the output to the input.

    ``sensitive_first`` and ``sensitive_last`` sort by :func:`sensitivities`; ties keep the order of inference.
    """
    indices = list(range(len(sequence)))
    if kind == "reverse":
        return indices[::-1]
    if kind == "forward":
        return indices
    found = sensitivities(teacher, plan, statistics, cuts, sequence)
    return sorted(indices, key=lambda index: found[index], reverse=kind == "sensitive_first")


@torch.no_grad()
def sensitivities(
    teacher: Backbone, plan: Plan, statistics: Statistics, cuts: ActivationCache, sequence: tuple[Segment, ...]
) -> list[float]:
    """MSE of the image over all samples with one module alone quantized, calibrated and untrained, for each module."""
    found = []
    for index, unit in enumerate(sequence):
        student = quantize(teacher, plan, statistics, unit.layers)
        error, count = 0.0, 0
        for part in torch.arange(cuts.samples).split(_BATCH):
            image = run_segments(student, cuts.load(index, part), sequence[index:]).hidden
            error += float(F.mse_loss(image, cuts.load(len(sequence), part).hidden, reduction="sum"))
            count += image.numel()
        found.append(error / count)
        del student  # before the next copy
    return found


def reconstruct(
    teacher: Backbone,
    plan: Plan,
    statistics: Statistics,
    lq: Tensor,
    config: ModulesPhase,
    setting: Setting,
    curves: Curves,
    checkpoint: Checkpoint,
    world: World = ALONE,
) -> Backbone:
    """A quantized copy of ``teacher``, trained module by module on inputs ``lq`` (N, 3, H, W) in [-1, 1].

    The processes of ``world`` share the steps, in ``config.parts``, and the teacher's states; all get the model.
    """
    sequence = teacher.segments()
    cuts = ActivationCache(checkpoint.folder / "cuts", teacher, sequence, lq)
    cuts.fill(world=world)
    kept = checkpoint.folder / "order.json"  # a resumed run must not decide anew
    if world.is_main_process and not intact(kept):
        write_json(kept, module_order(config.order, teacher, plan, statistics, cuts, sequence))
        seal(kept)
    world.wait()
    order: list[int] = read_json(kept)
    student = copy.deepcopy(teacher)
    image_loss = ImageLoss(config.loss, setting.lpips).to(lq.device)
    phases = [_Phase(order[: n + 1], sequence, config, setting, world, image_loss) for n in range(len(order))]
    reached = _reached(checkpoint, phases)
    for number in range(reached):
        _enter(student, plan, statistics, sequence[order[number]])
    for number in range(reached, len(phases)):
        _enter(student, plan, statistics, sequence[order[number]])
        phases[number].train(student, cuts, lq, curves, checkpoint, number)
    return student


def _enter(student: Backbone, plan: Plan, statistics: Statistics, unit: Segment) -> None:
    """Module becomes quantized, with initial values from the weights and the teacher's statistics."""
    apply(student, plan, unit.layers)
    initialise(student, statistics, unit.layers)


def _reached(checkpoint: Checkpoint, phases: list[_Phase]) -> int:
    """Number of the phase the checkpoint stands in; 0 at a fresh start."""
    state = checkpoint.load()
    names = [phase.unit.name for phase in phases]
    return names.index(state[1]["labels"]["module"]) if state else 0


class _Phase:
    """Training while ``quantized`` units are quantized, the last of them newly so."""

    def __init__(
        self,
        quantized: list[int],
        sequence: tuple[Segment, ...],
        config: ModulesPhase,
        setting: Setting,
        world: World,
        image_loss: ImageLoss,
    ) -> None:
        self._first, self._current, self._last = min(quantized), quantized[-1], len(sequence)
        self._sequence, self._config, self._setting = sequence, config, setting
        self._world, self.unit, self._image_loss = world, sequence[self._current], image_loss
        trained = quantized if config.train_quantized else quantized[-1:]
        self._layers = [layer for index in trained for layer in sequence[index].layers]

    def train(
        self, student: Backbone, cuts: ActivationCache, lq: Tensor, curves: Curves, checkpoint: Checkpoint, number: int
    ) -> None:
        """Run the module's steps, from the checkpoint where one stands here."""
        config = self._config
        rates = groups(student, config.rates, config.lr * self._setting.lr_scale, self._layers)
        steps, optimizer = config.steps, Optimizer(rates, config.weight_decay, constant, world=self._world)
        run = Run(
            f"quantize {self.unit.name} ({number + 1}/{self._last})",
            steps,
            optimizer,
            {"module": self.unit.name},
            lambda: values(student),
            number * steps,
            self._world.is_main_process,
            lambda: student.restore(lq[:4]),
            views=1,
        )
        start = resume(run, curves, checkpoint)
        if start:
            state = checkpoint.load()
            assert state is not None  # resume has just read it
            put_back(student, state[0])
        step = optimizer.shared_descent(self._losses(student, cuts, lq), config.batch, config.parts)
        fit(run, step, curves, checkpoint, start)

    def _losses(self, student: Backbone, cuts: ActivationCache, lq: Tensor) -> PartLosses:
        image_loss = self._image_loss
        variance = cuts.variance(self._current + 1)

        def measure(number: int, part: slice) -> dict[str, Tensor]:
            index = sample(len(lq), self._config.batch, number, self._setting.seed, self.unit.name)[part]
            state = run_segments(
                student, cuts.load(self._first, index), self._sequence[self._first : self._current + 1]
            )
            target, losses = cuts.load(self._current + 1, index).hidden, dict[str, Tensor]()
            if image_loss.weights and not number % self._config.image_every:
                image = run_segments(student, state, self._sequence[self._current + 1 :]).hidden
                kind, low, image_fp = self._setting.align, lq[index][:, -3:], cuts.load(self._last, index).hidden
                losses = image_loss(align(kind, image, low), align(kind, image_fp, low))
            error = F.mse_loss(state.hidden, target) / variance
            total = losses.get("total", 0.0) + self._config.module_loss * error
            return {**losses, "module_loss": error, "total": total}

        return measure
