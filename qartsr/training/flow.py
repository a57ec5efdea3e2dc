"""The sample DiT's training: a rectified flow from the latent of an enlarged picture to that of the sharp one.

Along x_t = (1 - t) Z_H + t Z_L the velocity is Z_L - Z_H (2209.03003, with pairs for its two ends, as 2303.11435): one
step from t = 1 is TSD-SR's Z_H = Z_L - v. Every sample takes that step. First it is judged by the latent that the
sample's UNet restores, which is quick and has no noise of its own: latents of a bank of crops are made once. Then by
its picture. A part of the crops is shown to the network at another t too, so that it also serves in several steps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qartsr.config.recipe import FlowConfig
from qartsr.files import replacing
from qartsr.models import OneStepSR
from qartsr.models.sd3_dit import SD3DiT
from qartsr.training.autoencoder import Lesson
from qartsr.training.backbone import phase_at
from qartsr.training.checkpoint import intact, seal
from qartsr.training.determinism import generator
from qartsr.training.distributed import Share
from qartsr.training.loop import Run, fit, resume
from qartsr.training.optimizer import Group, Optimizer, cosine

_BATCH = 8


class Bank(NamedTuple):
    """Latents of crops, each (N, C, h, w) in half precision, on the CPU."""

    low: Tensor
    """of the enlarged LR, Z_L"""
    taught: Tensor
    """Z_H as the teacher restores it"""
    high: Tensor
    """of HR"""

    def windows(self, batch: int, side: int, dice: torch.Generator) -> list[Tensor]:
        """The three of ``batch`` windows, ``side`` latents wide, as float."""
        count, size = len(self.low), self.low.shape[-1]
        chosen = torch.randint(count, (batch,), generator=dice).tolist()
        corners = torch.randint(size - side + 1, (batch, 2), generator=dice).tolist()
        return [
            torch.stack([part[n, :, y : y + side, x : x + side] for n, (y, x) in zip(chosen, corners, strict=True)])
            .float()
            for part in self
        ]  # fmt: skip


@torch.no_grad()
def make_bank(teacher: OneStepSR, config: FlowConfig, lesson: Lesson) -> Bank:
    """Latents of ``config.bank`` crops, by ``teacher`` and its autoencoder; an interrupted run's are read back."""
    path = lesson.checkpoint.folder / "bank.safetensors"
    if not intact(path):
        parts = [list[Tensor]() for _ in Bank._fields]
        for number in range(0, config.bank, _BATCH):
            batch = min(_BATCH, config.bank - number)
            hr, lq = lesson.batches(Share(number, batch, config.bank_crop, 0, batch))
            low = teacher.encode(lq)
            for part, value in zip(parts, (low, teacher.denoise(low), teacher.encode(hr)), strict=True):
                part.append(value.half().cpu())
            if not number % (64 * _BATCH):
                print(f"{lesson.title}: latents of {number}/{config.bank} crops", file=sys.stderr, flush=True)
        with replacing(path) as temporary:
            save_file({name: torch.cat(part) for name, part in zip(Bank._fields, parts, strict=True)}, temporary)
        seal(path)
    found = load_file(path)
    return Bank(*(found[name] for name in Bank._fields))


def train_flow(model: SD3DiT, config: FlowConfig, lesson: Lesson, teacher: OneStepSR | None = None) -> None:
    """Train the transformer in place, on the model's device; the autoencoder is fixed.

    ``teacher``: with the model's own autoencoder; needed by phases that are judged by latents.
    """
    model.requires_grad_(False).eval()
    dit = model.transformer.requires_grad_(True).train()
    bank = make_bank(teacher, config, lesson) if teacher and config.bank else None
    named = [Group(list(dit.named_parameters()), config.lr)]
    optimizer = Optimizer(named, config.weight_decay, cosine(config.steps, config.warmup))
    run = Run(lesson.title, config.steps, optimizer, {})
    step = optimizer.descent(flow_losses(model, config, lesson, bank))
    fit(run, step, lesson.curves, lesson.checkpoint, resume(run, lesson.curves, lesson.checkpoint))
    model.transformer.pos_embed.shift = (0, 0)
    model.eval().requires_grad_(False)


def flow_losses(
    model: SD3DiT, config: FlowConfig, lesson: Lesson, bank: Bank | None = None
) -> Callable[[int], dict[str, Tensor]]:
    """Losses by a step's number: ``l1`` of its one step, ``flow`` of the velocity, and their weighted ``total``."""
    device = model.device.type

    def losses(number: int) -> dict[str, Tensor]:
        phase = phase_at(config.phases, number / config.steps)
        dice, shown = generator(lesson.seed, lesson.title, number, "flow"), round(config.share * phase.batch)
        t = torch.cat([torch.ones(phase.batch), torch.rand(shown, generator=dice)]).to(model.device)
        model.transformer.pos_embed.shift = _shift(model, phase.crop, dice)
        if phase.judged == "latent":
            assert bank is not None
            found = bank.windows(phase.batch, phase.crop // model.facts.factor, dice)
            z_l, target, z_h = (part.to(model.device) for part in found)
            z_h = z_h[:shown]
        else:
            target, lq = lesson.batches(Share(number, phase.batch, phase.crop, 0, phase.batch))
            with torch.no_grad():
                z_l, z_h = model.encode(lq), model.encode(target[:shown])
        along = torch.cat([z_l, z_h.lerp(z_l[:shown], t[phase.batch :].view(-1, 1, 1, 1))])
        with torch.autocast(device, torch.bfloat16, enabled=config.autocast == "bf16"):
            velocity = model.velocity(along, 1000 * t)
        velocity = velocity.float()
        made = model.step(z_l, velocity[: phase.batch])
        l1 = ((made if phase.judged == "latent" else model.decode(made)) - target).abs().mean()
        flow = (velocity[phase.batch :] - (z_l[:shown] - z_h)).abs().mean() if shown else l1.new_zeros(())
        return {"l1": l1, "flow": flow, "total": l1 + config.weight * flow}

    return losses


def _shift(model: SD3DiT, crop: int, dice: torch.Generator) -> tuple[int, int]:
    """How far, in patches, a batch's places are moved: a crop may stand anywhere in a picture of the largest size."""
    room = model.transformer.pos_embed.most - crop // model.facts.multiple
    down, across = torch.randint(-(room // 2), room // 2 + 1, (2,), generator=dice).tolist()
    return down, across
