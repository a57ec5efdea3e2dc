"""Training the whole floating-point model on photographs: pretraining of the sample backbone, and TRQ.

TRQ (QArtSR, section 3.2): the error of Z_H that quantization causes grows with sqrt(1 - abar_T), so the backbone is
retrained at a small timestep (T = 1) before anything is quantized.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qartsr.config.training import CropPhase, ImageLossConfig, LPIPSConfig
from qartsr.data.pairs import Pair, crop_batch
from qartsr.losses import ImageLoss
from qartsr.models import OneStepSR, align
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.curves import Curves
from qartsr.training.determinism import generator
from qartsr.training.fit import Run, Step, fit, resume
from qartsr.training.optimizer import Group, Optimizer, cosine


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
    seed: int


def train_backbone(model: OneStepSR, pairs: list[Pair], recipe: Recipe, curves: Curves, checkpoint: Checkpoint) -> None:
    """Train all weights of ``model`` in place, at ``model.timestep``, on crops of ``pairs``."""
    device = model.context.device
    model.train().requires_grad_(True)
    model.to(memory_format=torch.channels_last)
    optimizer = Optimizer(
        [Group(list(model.named_parameters()), recipe.lr)], recipe.weight_decay, cosine(recipe.steps, recipe.warmup)
    )
    run = Run(recipe.title, recipe.steps, optimizer, {})
    step = _step(model, pairs, recipe, device)
    fit(run, step, curves, checkpoint, resume(run, curves, checkpoint))
    model.eval().requires_grad_(False)
    model.to(memory_format=torch.contiguous_format)


def _step(model: OneStepSR, pairs: list[Pair], recipe: Recipe, device: torch.device) -> Step:
    image_loss = ImageLoss(recipe.loss, recipe.lpips).to(device)

    def step(number: int) -> dict[str, Tensor]:
        phase = _phase(recipe.phases, number / recipe.steps)
        hr, lq = crop_batch(pairs, phase.batch, phase.crop, generator(recipe.seed, recipe.title, number))
        lq = lq.to(device, memory_format=torch.channels_last)
        losses: dict[str, Tensor] = image_loss(align(recipe.align, model(lq), lq), hr.to(device))
        return losses

    return step


def _phase(phases: Sequence[CropPhase], done: float) -> CropPhase:
    """The phase at a share ``done`` of the run; the last one also covers what rounding leaves over."""
    end = 0.0
    for phase in phases:
        end += phase.share
        if done < end:
            return phase
    return phases[-1]
