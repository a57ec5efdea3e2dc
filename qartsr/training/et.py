"""ET: extended training of all quantized modules together on the image loss (QArtSR, section 3.4).

Methods that train end to end by other losses (Q-DM, EfficientDM, PassionSR) are the same loop with losses inside the
network, :mod:`qartsr.training.distillation`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.config.method import ModelPhase
from qartsr.losses import ImageLoss
from qartsr.models import Backbone, align
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.determinism import sample
from qartsr.training.distillation import Forward, plain
from qartsr.training.distributed import ALONE, World
from qartsr.training.loop import Curves, Run, fit, resume
from qartsr.training.optimizer import Optimizer, Setting, cosine
from qartsr.training.param_groups import groups


def extend(
    student: Backbone,
    images: Tensor,
    lq: Tensor,
    config: ModelPhase,
    setting: Setting,
    curves: Curves,
    checkpoint: Checkpoint,
    forward: Forward = plain,
    world: World = ALONE,
) -> None:
    """Train ``student`` in place towards the teacher's ``images`` (N, 3, H, W, raw output) of inputs ``lq``.

    ``forward`` runs the student and gives losses of its own, weighted; :func:`inside` makes it from ``config``. The
    processes of ``world`` share the steps, in ``config.parts``; all end with the same student.
    """
    image_loss = ImageLoss(config.loss, setting.lpips).to(lq.device)
    rates = groups(student, config.rates, config.lr * setting.lr_scale)
    optimizer = Optimizer(rates, config.weight_decay, cosine(config.steps, 1), world=world)
    run = Run("extend", config.steps, optimizer, {}, shown=world.is_main_process, view=lambda: student.restore(lq[:4]))

    def measure(number: int, part: slice) -> dict[str, Tensor]:
        index = sample(len(lq), config.batch, number, setting.seed, "extend")[part]
        seen = lq[index]
        low = seen[:, -3:]  # of clips the frame that is restored
        target = align(setting.align, images[index], low)
        image, inner = forward(student, seen, index)
        losses: dict[str, Tensor] = image_loss(align(setting.align, image, low), target)
        return {**losses, **inner, "total": sum(inner.values(), start=losses["total"])}

    step = optimizer.shared_descent(measure, config.batch, config.parts)
    fit(run, step, curves, checkpoint, resume(run, curves, checkpoint))


def teacher_images(teacher: Backbone, lq: Tensor, batch: int = 8, world: World = ALONE) -> Tensor:
    """The floating-point model's raw output for every input (N, 3, H, W); each process makes some of them."""
    parts = lq.split(batch)
    with torch.no_grad():
        return torch.cat([part.to(lq.device) for part in world.spread(len(parts), lambda n: teacher(parts[n]).cpu())])
