"""Training the floating-point model on photographs: TRQ, and the sample backbone's one-step training.

One step, as OSEDiff's: the loss of the image and of Z_H moves the model, then the regulariser follows the Z_H of the
same step. Both gradients are taken before either update, which is the same, for neither depends on the other's update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from qartsr.config.training import CropPhase, ImageLossConfig, LPIPSConfig
from qartsr.losses import ImageLoss
from qartsr.models import Backbone, align
from qartsr.training.batches import Batches
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.distributed import MicroBatching, Share
from qartsr.training.loop import Curves, Run, fit, resume
from qartsr.training.optimizer import Group, Optimizer, Optimizers, cosine, level
from qartsr.training.vsd import Regulariser


class Recipe(NamedTuple):
    """What a run of backbone training depends on beside the data."""

    title: str
    steps: int
    phases: Sequence[CropPhase]
    lr: float
    warmup: int
    weight_decay: float
    loss: ImageLossConfig
    lpips: LPIPSConfig
    align: str
    schedule: str = "cosine"
    betas: tuple[float, float] = (0.9, 0.99)
    autocast: str = "none"
    clamp: bool = False
    latent: float = 0.0
    """weight of the squared error of Z_H to the latent of HR, over that latent's variance"""
    slow: tuple[str, ...] = ()
    """beginnings of names of parameters whose rate is ``slowness`` times ``lr``"""
    slowness: float = 1.0


def train_backbone(
    model: Backbone,
    batches: Batches,
    recipe: Recipe,
    regulariser: Regulariser,
    means: MicroBatching,
    curves: Curves,
    checkpoint: Checkpoint,
) -> None:
    """Train, in place and at ``model.timestep``, what of ``model`` requires gradients; nothing does afterwards."""
    model.train()
    model.to(memory_format=torch.channels_last)
    if means.checkpointing:
        model.enable_gradient_checkpointing()
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    schedule = level(recipe.warmup) if recipe.schedule == "constant" else cosine(recipe.steps, recipe.warmup)
    slow = [(name, parameter) for name, parameter in trained if name.startswith(recipe.slow)]
    quick = [(name, parameter) for name, parameter in trained if not name.startswith(recipe.slow)]
    groups = [Group(quick, recipe.lr), Group(slow, recipe.lr * recipe.slowness)]
    optimizers = Optimizers(
        *(
            Optimizer(part, recipe.weight_decay, schedule, recipe.betas, means.world)
            for part in (groups, [Group(regulariser.trained(), recipe.lr)])
        )
    )
    share = means.shares(0, recipe.phases[0].batch, recipe.phases[0].crop)[0]

    def view() -> Tensor:
        return model.restore(batches(share)[1][:4].to(means.world.device))

    run = Run(recipe.title, recipe.steps, optimizers, {}, shown=means.world.is_main_process, view=view)
    turn = _Turn(model, batches, recipe, regulariser, means, optimizers)
    fit(run, turn, curves, checkpoint, resume(run, curves, checkpoint))
    model.eval().requires_grad_(False)
    model.to(memory_format=torch.contiguous_format)


class _Turn:
    """One step: this process's share of the batch part by part, then the update."""

    def __init__(
        self,
        model: Backbone,
        batches: Batches,
        recipe: Recipe,
        regulariser: Regulariser,
        means: MicroBatching,
        optimizers: Optimizers,
    ) -> None:
        self._model, self._batches, self._recipe, self._regulariser = model, batches, recipe, regulariser
        self._means, self._optimizers, self._device = means, optimizers, means.world.device
        self._image_loss = ImageLoss(recipe.loss, recipe.lpips).to(self._device)
        self._autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=recipe.autocast == "bf16")

    def __call__(self, number: int) -> dict[str, Tensor]:
        """Losses of the step, averaged over the whole batch."""
        phase = phase_at(self._recipe.phases, number / self._recipe.steps)
        shares = self._means.shares(number, phase.batch, phase.crop)
        self._optimizers.zero()
        losses: dict[str, Tensor] = {}
        for share in shares:
            for name, value in self._descend(share, len(shares)).items():
                losses[name] = losses.get(name, 0) + value.detach() / len(shares)
        self._optimizers.update(number)
        self._means.world.average(losses.values())
        return losses

    def _descend(self, share: Share, count: int) -> dict[str, Tensor]:
        """Losses of one of ``count`` parts, and their gradients added to those of the parts before."""
        hr, lq = self._batches(share)
        lq = lq.to(self._device, memory_format=torch.channels_last)
        with self._autocast:
            z_h, image = self._forward(lq)
            on_latent = self._regulariser.score(z_h, share)
        losses: dict[str, Tensor] = self._image_loss(align(self._recipe.align, image, lq[:, -3:]), hr.to(self._device))
        total = sum((self._regulariser.weight * loss for loss in on_latent.values()), start=losses["total"])
        if self._recipe.latent:
            losses["latent"] = self._to_latent(z_h, hr)
            total = total + self._recipe.latent * losses["latent"]
        (total / count).backward()
        with self._autocast:
            own = self._regulariser.follow(z_h.detach(), share)
        for loss in own.values():
            (loss / count).backward()
        return {**losses, **on_latent, **own, "total": total}

    def _to_latent(self, z_h: Tensor, hr: Tensor) -> Tensor:
        with torch.no_grad(), self._autocast:
            target = self._model.encode(hr.to(self._device, memory_format=torch.channels_last)).float()
        return F.mse_loss(z_h, target) / target.var()

    def _forward(self, lq: Tensor) -> tuple[Tensor, Tensor]:
        """Z_H and the image, both fp32: Eq. 6 would lose the small part of Z_H in 8 bits of mantissa."""
        model = self._model
        z_l = model.encode(lq).float()
        z_h = model.step(z_l[:, -model.facts.latents :], model.predict(z_l).float())
        image = model.decode(z_h).float()
        return z_h, image.clamp(-1, 1) if self._recipe.clamp else image


_Phase = TypeVar("_Phase", bound=CropPhase)


def phase_at(phases: Sequence[_Phase], done: float) -> _Phase:
    """The phase at a share ``done`` of the run; the last one also covers what rounding leaves over."""
    end = 0.0
    for phase in phases:
        end += phase.share
        if done < end:
            return phase
    return phases[-1]
