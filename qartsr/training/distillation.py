"""Losses inside the network while the whole of it trains: on the latents, and on the output of every module.

With M_k the hidden output of module k along the quantized path, and Z_H the output of the UNet's last module (Eq. 6):

    latent_loss  = w MSE(Z_H_q, Z_H_fp) / Var(Z_H_fp)              PassionSR; EfficientDM's and Q-DM's loss on the noise
    encoder_loss = w MSE(Z_L_q, Z_L_fp) / Var(Z_L_fp)              PassionSR's code, for the encoder; Z_L its output
    feature_loss = w mean_k MSE(M_k_q, M_k_fp) / Var(M_k_fp)       feature mimicking (Q-DM), module-output distillation

The error of Z_H is that of the noise times sqrt((1 - abar) / abar), so at one fixed timestep a loss on Z_H is a loss on
the noise plus what the quantized encoder adds; the papers that give the loss on the noise quantize no encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qartsr.config.method import ModelPhase
from qartsr.models import Backbone, Segment, State

Forward = Callable[[Backbone, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]
"""(student, network input (B, 3, H, W), its indices among the calibration pairs) -> raw image, weighted losses."""


def plain(student: Backbone, lq: Tensor, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The image (B, 3, H, W), and no loss inside the network; ``lq`` (B, 3, H, W), ``index`` (B,)."""
    return student(lq), {}


def inside(teacher: Backbone, lq: Tensor, config: ModelPhase) -> Forward:
    """The forward pass that ``config`` asks for.

    The teacher's outputs for all of ``lq`` (N, 3, H, W) are computed once and held in memory.
    """
    if not (config.latent_loss or config.encoder_loss or config.feature_loss):
        return plain
    sequence = teacher.segments()
    latent, encoder = (max(n for n, s in enumerate(sequence) if s.place == place) for place in ("denoiser", "encoder"))
    kept = range(len(sequence)) if config.feature_loss else [encoder, latent]
    targets = _outputs(teacher, lq, sequence, kept)

    def forward(student: Backbone, low: Tensor, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        state, errors = State(low), dict[int, Tensor]()
        for number, unit in enumerate(sequence):
            state = unit.run(student, state)
            if number in targets:
                errors[number] = F.mse_loss(state.hidden, targets[number][index]) / targets[number].var()
        losses = {}
        if config.latent_loss:
            losses["latent_loss"] = config.latent_loss * errors[latent]
        if config.encoder_loss:
            losses["encoder_loss"] = config.encoder_loss * errors[encoder]
        if config.feature_loss:
            losses["feature_loss"] = config.feature_loss * sum(errors.values(), start=low.new_zeros(())) / len(errors)
        return state.hidden, losses

    return forward


@torch.no_grad()
def _outputs(
    teacher: Backbone, lq: Tensor, sequence: Sequence[Segment], kept: Sequence[int], batch: int = 8
) -> dict[int, Tensor]:
    """Hidden outputs of the kept modules for all inputs."""
    found: dict[int, list[Tensor]] = {number: [] for number in kept}
    for part in lq.split(batch):
        state = State(part)
        for number, unit in enumerate(sequence):
            state = unit.run(teacher, state)
            if number in found:
                found[number].append(state.hidden)
    return {number: torch.cat(parts) for number, parts in found.items()}
