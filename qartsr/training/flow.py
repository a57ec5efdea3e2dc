"""The sample DiT's training: a rectified flow from the latent of an enlarged picture to that of the sharp one.

Along x_t = (1 - t) Z_H + t Z_L the velocity is Z_L - Z_H (2209.03003, with pairs for its two ends, as 2303.11435): one
step from t = 1 is TSD-SR's Z_H = Z_L - v. Every sample takes that step and is judged by its picture; a part of them is
shown to the network at another t too, so that it also serves in several steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qartsr.config.recipe import FlowConfig
from qartsr.models.sd3_dit import SD3DiT
from qartsr.training.autoencoder import Lesson
from qartsr.training.backbone import phase_at
from qartsr.training.determinism import generator
from qartsr.training.distributed import Share
from qartsr.training.loop import Run, fit, resume
from qartsr.training.optimizer import Group, Optimizer, cosine


def train_flow(model: SD3DiT, config: FlowConfig, lesson: Lesson) -> None:
    """Train the transformer in place, on the model's device; the autoencoder is fixed."""
    model.requires_grad_(False).eval()
    dit = model.transformer.requires_grad_(True).train()
    named = [Group(list(dit.named_parameters()), config.lr)]
    optimizer = Optimizer(named, config.weight_decay, cosine(config.steps, config.warmup))
    run = Run(lesson.title, config.steps, optimizer, {})
    step = optimizer.descent(flow_losses(model, config, lesson))
    fit(run, step, lesson.curves, lesson.checkpoint, resume(run, lesson.curves, lesson.checkpoint))
    model.transformer.pos_embed.shift = (0, 0)
    model.eval().requires_grad_(False)


def flow_losses(model: SD3DiT, config: FlowConfig, lesson: Lesson) -> Callable[[int], dict[str, Tensor]]:
    """Losses of a step by its number: ``l1`` of the picture, ``flow`` of the velocity, and their weighted ``total``."""
    device = model.device.type

    def losses(number: int) -> dict[str, Tensor]:
        phase = phase_at(config.phases, number / config.steps)
        hr, lq = lesson.batches(Share(number, phase.batch, phase.crop, 0, phase.batch))
        dice, shown = generator(lesson.seed, lesson.title, number, "flow"), round(config.share * phase.batch)
        t = torch.cat([torch.ones(phase.batch), torch.rand(shown, generator=dice)]).to(model.device)
        model.transformer.pos_embed.shift = _shift(model, phase.crop, dice)
        with torch.no_grad():
            z_l, z_h = model.encode(lq), model.encode(hr[:shown])
            along = torch.cat([z_l, z_h.lerp(z_l[:shown], t[phase.batch :].view(-1, 1, 1, 1))])
        with torch.autocast(device, torch.bfloat16, enabled=config.autocast == "bf16"):
            velocity = model.velocity(along, 1000 * t)
        velocity = velocity.float()
        image = model.decode(model.step(z_l, velocity[: phase.batch]))
        l1 = (image - hr).abs().mean()
        flow = (velocity[phase.batch :] - (z_l[:shown] - z_h)).abs().mean() if shown else l1.new_zeros(())
        return {"l1": l1, "flow": flow, "total": l1 + config.weight * flow}

    return losses


def _shift(model: SD3DiT, crop: int, dice: torch.Generator) -> tuple[int, int]:
    """How far, in patches, a batch's places are moved: a crop may stand anywhere in a picture of the largest size."""
    room = model.transformer.pos_embed.most - crop // model.facts.multiple
    down, across = torch.randint(-(room // 2), room // 2 + 1, (2,), generator=dice).tolist()
    return down, across
