"""Training a model of clips from a model of images: the UNet alone, on moving clips whose flow is exact.

Of three frames the last two are restored, each with the one before. Loss: L1 of both, and ``consistency`` times the L1
of what changes between them where nothing does: y_t - w(y_(t-1)), w by the clip's own flow, is zero in the truth.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qartsr.config.recipe import VideoConfig
from qartsr.data.clips import Clips, carried
from qartsr.models.sd_unet.model import SDUNet
from qartsr.training.backbone import phase_at
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.loop import Curves, Run, fit, resume
from qartsr.training.optimizer import Group, Optimizer, cosine

ClipBatches = Callable[[int, int, int], Clips]
"""Number of the step, clips, side of the crop."""


class Lesson:
    """One step: a batch of clips, its losses, the update."""

    def __init__(self, model: SDUNet, config: VideoConfig, optimizer: Optimizer, batches: ClipBatches) -> None:
        self._model, self._config, self._optimizer, self._batches = model, config, optimizer, batches
        bf16 = config.autocast == "bf16"
        self._autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=bf16)

    def __call__(self, number: int) -> dict[str, Tensor]:
        """Losses of step ``number``."""
        phase = phase_at(self._config.phases, number / self._config.steps)
        clips = self._batches(number, phase.batch, phase.crop)
        self._optimizer.zero()
        losses = clip_losses(restored(self._model, clips.lq, self._autocast), clips, self._config.consistency)
        losses["total"].backward()
        self._optimizer.update(number)
        return losses


def restored(model: SDUNet, lq: Tensor, autocast: torch.autocast) -> Tensor:
    """(B, T, 3, H, W) -> frames 1 to T - 1, each restored with the one before it: (B, T - 1, 3, H, W).

    A model of images restores each alone.
    """
    batch, length = lq.shape[:2]
    with autocast:
        with torch.no_grad():
            z = model.encode(lq.flatten(0, 1)).float().unflatten(0, (batch, length))
        now = z[:, 1:].flatten(0, 1)
        seen = torch.cat([z[:, :-1], z[:, 1:]], 2).flatten(0, 1) if model.facts.frames > 1 else now
        image = model.decode(model.step(now, model.predict(seen).float())).float()
    return image.unflatten(0, (batch, length - 1))


def clip_losses(made: Tensor, clips: Clips, consistency: float) -> dict[str, Tensor]:
    """L1 of the frames ``made``, (B, T - 1, 3, H, W), L1 of their unfounded changes, and the total."""
    l1 = (made - clips.hr[:, 1:]).abs().mean()
    before, known = carried(made[:, :-1].flatten(0, 1), clips.steps[:, 1:].flatten(0, 1))
    change = ((made[:, 1:].flatten(0, 1) - before).abs() * known).sum() / (3 * known.sum())
    return {"l1": l1, "change": change, "total": l1 + consistency * change}


def train_video(
    model: SDUNet, config: VideoConfig, batches: ClipBatches, curves: Curves, checkpoint: Checkpoint
) -> None:
    """Train the UNet of ``model``, in place, where it lies."""
    layout = torch.channels_last if model.device.type == "cpu" else torch.contiguous_format
    model.requires_grad_(False).train().to(memory_format=layout)
    model.get_submodule(model.denoiser).requires_grad_(True)
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer = Optimizer([Group(trained, config.lr)], config.weight_decay, cosine(config.steps, config.warmup))
    run = Run("video", config.steps, optimizer, {})
    fit(run, Lesson(model, config, optimizer, batches), curves, checkpoint, resume(run, curves, checkpoint))
    model.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
