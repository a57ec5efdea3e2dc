"""The first two steps of the sample backbone's birth, as Stable Diffusion's: an autoencoder, then a diffusion prior.

Autoencoder: the VAE learns to give pictures back (2112.10752, section 3.1), sharp ones and bicubically enlarged ones,
for a restorer's encoder sees the latter. Then it is fixed. Prior: the UNet learns the noise in the latents of sharp
pictures at every timestep (2006.11239, Eq. 14), which makes T = 999 natural for it and gives VSD a teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qartsr.config.recipe import AutoencoderConfig, SchoolingConfig
from qartsr.models import Backbone
from qartsr.models.sd_unet.diffusers_imports import AutoencoderKL, UNet2DConditionModel
from qartsr.models.sd_unet.schedule import STEPS, alphas_cumprod
from qartsr.training.backbone import phase_at
from qartsr.training.batches import Batches
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.determinism import generator
from qartsr.training.distributed import Share
from qartsr.training.loop import Curves, Run, fit, resume
from qartsr.training.optimizer import Group, Optimizer, cosine
from qartsr.training.transform_start import level, start_as_transform


class Lesson(NamedTuple):
    """What a training run has beside its network and configuration."""

    title: str
    batches: Batches
    seed: int
    curves: Curves
    checkpoint: Checkpoint


def train_autoencoder(vae: AutoencoderKL, config: AutoencoderConfig, lesson: Lesson) -> None:
    """Train ``vae`` in place on sharp crops and, every second sample, on enlarged ones, each its own target.

    It starts as a block transform, its latents levelled (:mod:`qartsr.training.transform_start`).
    """
    start_as_transform(vae)
    level(vae, latents(vae, lesson.batches, 64))

    def losses(number: int) -> dict[str, Tensor]:
        share = _share(config, number)
        hr, lq = lesson.batches(share)
        enlarged = (torch.arange(share.batch) % 2 == 1).view(-1, 1, 1, 1)
        target = torch.where(enlarged, lq, hr).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.autocast == "bf16"):
            moments = vae.encode(target).latent_dist
            mean, logvar = moments.mean.float(), moments.logvar.float()
            noise = torch.randn(mean.shape, generator=generator(lesson.seed, lesson.title, number, "noise"))
            image = vae.decode(mean + (0.5 * logvar).exp() * noise).sample.float()
        found = {
            "l1": F.l1_loss(image, target),
            "gradient": _differences(image - target),
            "kl": 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean(),
        }
        return {**found, "total": found["l1"] + config.gradient * found["gradient"] + config.kl * found["kl"]}

    _train(vae, losses, config, lesson)


def train_prior(model: Backbone, config: SchoolingConfig, lesson: Lesson) -> None:
    """Train the denoiser in place to predict the noise in the latents of sharp crops, every timestep equally often.

    The prompt is the model's context, the only one there is.
    """
    levels, unet = alphas_cumprod(), model.get_submodule(model.denoiser)
    assert isinstance(unet, UNet2DConditionModel)  # the schedule is Stable Diffusion's
    nn.init.zeros_(unet.conv_out.weight)

    def losses(number: int) -> dict[str, Tensor]:
        share = _share(config, number)
        dice = generator(lesson.seed, lesson.title, number, "noise")
        with torch.no_grad():
            z = model.encode(lesson.batches(share)[0]).float()
        t = torch.randint(0, STEPS, (share.batch,), generator=dice)
        noise = torch.randn(z.shape, generator=dice)
        level = levels[t].view(-1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.autocast == "bf16"):
            predicted = unet(
                level.sqrt() * z + (1 - level).sqrt() * noise,
                t,
                encoder_hidden_states=model.context.expand(share.batch, -1, -1),
            ).sample
        return {"total": F.mse_loss(predicted.float(), noise)}

    _train(unet, losses, config, lesson)


def latents(vae: AutoencoderKL, batches: Batches, crop: int) -> Tensor:
    """(64, C, crop / 4, crop / 4) unscaled latents of sharp crops, posterior means."""
    with torch.no_grad():
        return torch.cat([vae.encode(batches(Share(n, 8, crop, 0, 8))[0]).latent_dist.mean for n in range(8)])


def _train(
    network: nn.Module, losses: Callable[[int], dict[str, Tensor]], config: SchoolingConfig, lesson: Lesson
) -> None:
    network.train().requires_grad_(True)
    network.to(memory_format=torch.channels_last)
    optimizer = Optimizer(
        [Group(list(network.named_parameters()), config.lr)], config.weight_decay, cosine(config.steps, config.warmup)
    )
    run = Run(lesson.title, config.steps, optimizer, {})
    start = resume(run, lesson.curves, lesson.checkpoint)
    fit(run, optimizer.descent(losses), lesson.curves, lesson.checkpoint, start)
    network.eval().requires_grad_(False)
    network.to(memory_format=torch.contiguous_format)


def _share(config: SchoolingConfig, number: int) -> Share:
    phase = phase_at(config.phases, number / config.steps)
    return Share(number, phase.batch, phase.crop, 0, phase.batch)


def _differences(error: Tensor) -> Tensor:
    """Mean absolute finite difference of an error (B, C, H, W), along both sides."""
    return (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
