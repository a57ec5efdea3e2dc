"""Variational score distillation of Z_H, OSEDiff's regulariser (2406.08177, section 3.3; 2305.16213).

Z_H is noised to z_t. A teacher, Stable Diffusion's own UNet with classifier-free guidance, and a student, the same
UNet with adapters, predict from it x0 = (z_t - sqrt(1 - abar) epsilon) / sqrt(abar). The student follows the
distribution of Z_H: it trains, in alternation with the model, on the plain diffusion loss. What the two see
differently is the gradient given to Z_H,

    g = (x0_student - x0_teacher) / mean|Z_H - x0_teacher|,    L = MSE(Z_H, stop(Z_H - g)).
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from qartsr.config.retrain import AdaptersConfig, VSDConfig
from qartsr.errors import QartsrError
from qartsr.models.sd_unet.diffusers_imports import UNet2DConditionModel
from qartsr.models.sd_unet.model import lora_targets
from qartsr.models.sd_unet.schedule import STEPS, alphas_cumprod
from qartsr.training.adapter_layers import adapt
from qartsr.training.determinism import generator
from qartsr.training.distributed import Share

Named = list[tuple[str, Parameter]]


class Regulariser(Protocol):
    """A loss on Z_H by networks of its own, some of which train beside the model."""

    weight: float

    def trained(self) -> Named:
        """What of it trains."""

    def score(self, z_h: Tensor, share: Share) -> dict[str, Tensor]:
        """Losses of Z_H (B, C, h, w), by name, each to be added ``weight`` times; gradients go to Z_H alone."""

    def follow(self, z_h: Tensor, share: Share) -> dict[str, Tensor]:
        """Losses of the regulariser's own networks on Z_H (B, C, h, w); no gradient goes to Z_H."""


class NoRegulariser:
    """No loss on Z_H."""

    weight = 0.0

    def trained(self) -> Named:
        """Nothing."""
        return []

    def score(self, z_h: Tensor, share: Share) -> dict[str, Tensor]:
        """None."""
        return {}

    def follow(self, z_h: Tensor, share: Share) -> dict[str, Tensor]:
        """None."""
        return {}


class VSD:
    """Teacher and student. They share the teacher's weights, so a student costs its adapters only.

    ``teacher``: UNet on its device, frozen here. ``prompt`` and ``negative``: (1, N, D) embeddings. Timesteps and noise
    of an image depend on seed, title and the image's place in the step. Predictions are taken as fp32.
    """

    def __init__(
        self,
        teacher: UNet2DConditionModel,
        prompt: Tensor,
        negative: Tensor,
        config: VSDConfig,
        adapters: AdaptersConfig,
        purpose: tuple[int, str],
    ) -> None:
        if prompt.shape != negative.shape:
            what = f"the prompt's embedding is {tuple(prompt.shape)}, the negative prompt's {tuple(negative.shape)}"
            raise QartsrError(what, "retrain.base", "name the Stable Diffusion that the backbone was made from")
        self.weight, self._config, self._purpose = config.weight, config, purpose
        self._prompts = torch.cat([negative, prompt])
        self.teacher = teacher.eval().requires_grad_(False)
        shared: dict[int, Any] = {id(parameter): parameter for parameter in teacher.parameters()}
        self.student: UNet2DConditionModel = copy.deepcopy(teacher, shared)
        adapt(self.student, lora_targets(self.student), adapters, generator(*purpose, "student"))
        self.student.train()
        levels = alphas_cumprod().double()
        self._signal, self._noise = (x.sqrt().float().to(prompt.device) for x in (levels, 1 - levels))

    def trained(self) -> Named:
        """The student's adapters, named ``student. ...``."""
        return [(f"student.{name}", value) for name, value in self.student.named_parameters() if value.requires_grad]

    def score(self, z_h: Tensor, share: Share) -> dict[str, Tensor]:
        """The distillation loss."""
        with torch.no_grad():
            t, _, z_t = self._noised(z_h, share, "score", self._config.first, self._config.last)
            teacher = self.clean(z_t, t, self.guided(z_t, t))
            student = self.clean(z_t, t, self._predict(self.student, z_t, t, self._prompts[1:]))
            gradient = (student - teacher) / (z_h - teacher).abs().mean((1, 2, 3), keepdim=True)
        return {"vsd": F.mse_loss(z_h, z_h.detach() - gradient)}

    def follow(self, z_h: Tensor, share: Share) -> dict[str, Tensor]:
        """The student's diffusion loss on Z_H, over all timesteps."""
        t, noise, z_t = self._noised(z_h.detach(), share, "follow", 0, STEPS - 1)
        return {"diffusion": F.mse_loss(self._predict(self.student, z_t, t, self._prompts[1:]), noise)}

    def guided(self, z_t: Tensor, t: Tensor) -> Tensor:
        """The teacher's noise (B, C, h, w) at timesteps ``t`` (B,): e_negative + guidance (e_prompt - e_negative)."""
        both = self._predict(self.teacher, torch.cat([z_t, z_t]), torch.cat([t, t]), self._prompts)
        negative, positive = both.chunk(2)
        return negative + self._config.guidance * (positive - negative)

    def _predict(self, unet: UNet2DConditionModel, z_t: Tensor, t: Tensor, prompts: Tensor) -> Tensor:
        context = prompts.repeat_interleave(z_t.shape[0] // prompts.shape[0], 0)
        return unet(z_t, t, encoder_hidden_states=context).sample.float()

    def _noised(self, z_h: Tensor, share: Share, purpose: str, first: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
        """Timesteps (B,), noise, and z_t = sqrt(abar) Z_H + sqrt(1 - abar) noise."""
        dice = generator(*self._purpose, share.number, purpose)
        own = slice(share.start, share.stop)
        t = torch.randint(first, last + 1, (share.batch,), generator=dice)[own].to(z_h.device)
        noise = torch.randn(share.batch, *z_h.shape[1:], generator=dice)[own].to(z_h.device)
        return t, noise, _at(self._signal, t) * z_h + _at(self._noise, t) * noise

    def clean(self, z_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x0 from the predicted noise (QArtSR, Eq. 6), with a timestep (B,) of each image's own."""
        return (z_t - _at(self._noise, t) * noise) / _at(self._signal, t)


def _at(table: Tensor, t: Tensor) -> Tensor:
    return table[t].view(-1, 1, 1, 1)
