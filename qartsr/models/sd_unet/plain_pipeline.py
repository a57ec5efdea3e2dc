"""One-step super-resolution, x4, in diffusers and PyTorch alone. ``DiffusionPipeline.from_pretrained(FOLDER)`` is it.

Encoder -> UNet once at the model's timestep -> Z_H = (Z_L - sqrt(1 - a) epsilon) / sqrt(a) (OSEDiff, arXiv 2406.08177,
Eq. 6) -> decoder -> colour fix. Images are enlarged by bicubic before, so the result is four times as wide and high.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, ImagePipelineOutput, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

SCALE = 4


class OneStepSuperResolution(DiffusionPipeline):  # type: ignore[misc]
    """``pipe(image).images[0]``. The whole image at once: the memory grows with its area."""

    model_cpu_offload_seq = "vae->unet->vae"

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler: DDPMScheduler,
        prompt: Any,
        timestep: int = 999,
        align: str = "none",
    ) -> None:
        """``prompt``: holds ``context`` (1, N, D), the fixed embedding. ``align``: none, adain or wavelet."""
        super().__init__()
        self.register_modules(unet=unet, vae=vae, scheduler=scheduler, prompt=prompt)
        self.register_to_config(timestep=timestep, align=align)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.image_processor = VaeImageProcessor(vae_scale_factor=2 * self.vae_scale_factor)

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., Any] | None = None,
    ) -> Any:
        """The images, enlarged: Pillow's or a list of them, an array (B, H, W, 3) or a tensor (B, 3, H, W).

        Arrays and tensors are from 0 to 1; a list's images are of one size.

        With a ``generator`` the encoder's posterior is sampled, without one its mode is taken.
        """
        if isinstance(image, Image.Image | list):
            images = image if isinstance(image, list) else [image]
            sides = images[0].width * SCALE, images[0].height * SCALE
            images = [one.convert("RGB").resize(sides, Image.Resampling.BICUBIC) for one in images]
            low = _tensor(self.image_processor.pil_to_numpy(images))
        else:
            given = image if torch.is_tensor(image) else _tensor(image)
            size = given.shape[-2] * SCALE, given.shape[-1] * SCALE
            low = interpolate(given.float(), size, mode="bicubic", antialias=True).clamp(0, 1)
        low = 2 * low - 1
        low = low.to(self._execution_device, self.unet.dtype)
        result = self._restored(low, generator)
        if callback_on_step_end is not None:
            callback_on_step_end(self, 0, self.config.timestep, {})
        restored = (result.float() / 2 + 0.5).clamp(0, 1)
        made = self.image_processor.postprocess(restored, output_type, [False] * len(restored))
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=made) if return_dict else (made,)

    def _restored(self, low: Tensor, generator: torch.Generator | None) -> Tensor:
        height, width = low.shape[-2:]
        multiple = 2 * self.vae_scale_factor
        padded = _padded(low, -height % multiple, -width % multiple)
        posterior = self.vae.encode(padded).latent_dist
        latent = posterior.mode() if generator is None else posterior.sample(generator)
        latent = latent * self.vae.config.scaling_factor
        context = self.prompt.context.to(latent).expand(len(latent), -1, -1)
        times = torch.full((len(latent),), self.config.timestep, device=latent.device)
        epsilon = self.unet(latent, times, encoder_hidden_states=context).sample
        kept = self.scheduler.alphas_cumprod[self.config.timestep].to(latent)
        high = (latent - (1 - kept).sqrt() * epsilon) / kept.sqrt()
        image = self.vae.decode(high / self.vae.config.scaling_factor).sample.clamp(-1, 1)
        return _aligned(self.config.align, image[..., :height, :width], low).clamp(-1, 1)


def _tensor(images: Any) -> Tensor:
    """(B, H, W, C) array -> (B, C, H, W)."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def _padded(image: Tensor, bottom: int, right: int) -> Tensor:
    """Continued by mirroring, or by the last row where it is too small for that."""
    mode = "reflect" if bottom < image.shape[-2] and right < image.shape[-1] else "replicate"
    return pad(image, (0, right, 0, bottom), mode=mode) if bottom or right else image


def _aligned(kind: str, image: Tensor, source: Tensor) -> Tensor:
    """The colours of ``source``: mean and deviation per channel, or what is coarse (StableSR's colour fixes)."""
    if kind == "adain":
        mean, deviation = image.mean((2, 3), keepdim=True), (image.var((2, 3), keepdim=True) + 4e-5).sqrt()
        like, spread = source.mean((2, 3), keepdim=True), (source.var((2, 3), keepdim=True) + 4e-5).sqrt()
        return (image - mean) / deviation * spread + like
    if kind == "wavelet":
        return image - _coarse(image) + _coarse(source)
    return image


def _coarse(image: Tensor) -> Tensor:
    """Five dilated binomial blurs, replicated borders."""
    row = torch.tensor([0.25, 0.5, 0.25], dtype=image.dtype, device=image.device)
    kernel = (row[:, None] * row)[None, None].repeat(image.shape[1], 1, 1, 1)
    for level in range(5):
        reach = 2**level
        image = conv2d(
            pad(image, (reach, reach, reach, reach), mode="replicate"), kernel, groups=image.shape[1], dilation=reach
        )
    return image
