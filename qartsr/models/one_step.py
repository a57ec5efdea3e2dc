"""The one-step super-resolution model (OSEDiff): encode, one denoising step, decode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qartsr.models.align import align
from qartsr.models.libraries import AutoencoderKL, UNet2DConditionModel
from qartsr.models.schedule import noise_level


class OneStepSR(nn.Module):
    """LR image upsampled x4 -> VAE encoder -> UNet once at ``timestep`` -> Eq. 6 -> VAE decoder.

    Parameters
    ----------
    unet, vae: diffusers modules.
    context: (1, N, D) fixed prompt embedding; the text encoder is not part of the model.
    timestep: scheduler index 0..999.
    align: colour fix applied by :meth:`restore`.

    Images are (B, 3, H, W) RGB in [-1, 1]; H and W must be multiples of :attr:`multiple`.
    The encoder's posterior mode is used unless noise is given, so the model is a function of its arguments.
    """

    context: Tensor

    def __init__(
        self, unet: UNet2DConditionModel, vae: AutoencoderKL, context: Tensor, timestep: int, align: str = "none"
    ) -> None:
        super().__init__()
        self.unet, self.vae, self.timestep, self.align = unet, vae, timestep, align
        self.register_buffer("context", context)

    @property
    def multiple(self) -> int:
        """Sides of the network input must be multiples of this."""
        return self.factor * 2

    @property
    def factor(self) -> int:
        """Image pixels per latent pixel, along one side."""
        config: Any = self.vae.config
        return int(2 ** (len(config.block_out_channels) - 1))

    @property
    def latents(self) -> int:
        """Channels of the latent."""
        config: Any = self.vae.config
        return int(config.latent_channels)

    @property
    def scaling(self) -> float:
        """Factor between the VAE's latent and the UNet's."""
        config: Any = self.vae.config
        return float(config.scaling_factor)

    def posterior(self, lq: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) image -> mean and log-variance (clamped to -30..20) of the raw latent, (B, C, h, w) each."""
        distribution = self.vae.encode(lq).latent_dist
        return distribution.mean, distribution.logvar

    def encode(self, lq: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) image -> scaled latent Z_L: the posterior's mode, or its sample for normal ``noise``."""
        mean, logvar = self.posterior(lq)
        return self.scaling * (mean if noise is None else mean + torch.exp(0.5 * logvar) * noise)

    def predict_noise(self, z_l: Tensor) -> Tensor:
        """Noise epsilon = UNet(Z_L; T, c)."""
        context = self.context.expand(z_l.shape[0], -1, -1)
        timestep = torch.full((z_l.shape[0],), self.timestep, device=z_l.device)
        return self.unet(z_l, timestep, encoder_hidden_states=context).sample

    def step(self, z_l: Tensor, noise: Tensor) -> Tensor:
        """Z_H = (Z_L - sqrt(1 - abar) epsilon) / sqrt(abar) (QArtSR, Eq. 6)."""
        level = noise_level(self.timestep)
        return (z_l - level.noise * noise) / level.signal

    def denoise(self, z_l: Tensor) -> Tensor:
        """Z_L -> Z_H."""
        return self.step(z_l, self.predict_noise(z_l))

    def decode(self, z_h: Tensor) -> Tensor:
        """Latent Z_H -> image, not clamped."""
        return self.vae.decode(z_h / self.scaling).sample

    def forward(self, lq: Tensor, noise: Tensor | None = None) -> Tensor:
        """The network's raw output: no colour fix, no clamp. ``noise`` as in :meth:`encode`."""
        return self.decode(self.denoise(self.encode(lq, noise)))

    def restore(self, lq: Tensor) -> Tensor:
        """The finished image: forward, clamp, colour fix, clamp to [-1, 1]."""
        return align(self.align, self(lq).clamp(-1, 1), lq).clamp(-1, 1)
