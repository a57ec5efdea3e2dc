"""LR image at the network's size -> output image, with every quantity on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qartsr.models import OneStepSR
from qartsr.upscale.official import tiled_vae
from qartsr.upscale.official.tiled_unet import predict_noise
from qartsr.upscale.official.tiled_vae import Tile, tiles

ENCODER_PAD, DECODER_PAD = 32, 11
"""Pixels, and latent pixels, that a VAE tile sees beyond what it keeps."""


class Tiling(NamedTuple):
    """The script's four sizes and their defaults."""

    latent: int = 96
    overlap: int = 32
    encoder: int = 1024
    """image pixels"""
    decoder: int = 224
    """latent pixels"""


class Trace(NamedTuple):
    """What the network computed for one image; latents are (1, C, h, w)."""

    mean: Tensor
    logvar: Tensor
    z_l: Tensor
    """scaled by the VAE's factor"""
    noise: Tensor
    """predicted by the UNet"""
    z_h: Tensor
    decoded: Tensor
    """(1, 3, H, W), not clamped"""


def draw(model: OneStepSR, lq: Tensor, seed: int) -> Tensor:
    """The posterior's noise (1, C, h, w) for ``lq`` (1, 3, H, W): the first of a CPU generator, as in the script."""
    shape = (1, model.facts.latents, lq.shape[2] // model.facts.factor, lq.shape[3] // model.facts.factor)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def restore(model: OneStepSR, lq: Tensor, noise: Tensor | None, tiling: Tiling) -> Trace:
    """``lq`` (1, 3, H, W) in [-1, 1], sides in multiples of 8; ``noise`` None for the posterior's mode."""
    with torch.no_grad():
        mean, logvar = _encode(model, lq, tiling.encoder)
        z_l = (mean if noise is None else mean + torch.exp(0.5 * logvar) * noise) * model.facts.scaling
        predicted = predict_noise(model, z_l, tiling.latent, tiling.overlap)
        z_h = model.step(z_l, predicted)
        return Trace(mean, logvar, z_l, predicted, z_h, _decode(model, z_h, tiling.decoder))


def _encode(model: OneStepSR, lq: Tensor, tile: int) -> tuple[Tensor, Tensor]:
    if not _tiled(lq, tile, ENCODER_PAD):
        return model.posterior(lq)
    vae: Any = model.get_submodule("vae")
    factor = model.facts.factor
    places = tiles(lq.shape[2], lq.shape[3], tile, ENCODER_PAD)
    features = _joined(tiled_vae.encoder(vae), lq, places, lambda pixel: pixel // factor)
    mean, logvar = (features if vae.quant_conv is None else vae.quant_conv(features)).chunk(2, dim=1)
    return mean, logvar.clamp(-30, 20)


def _decode(model: OneStepSR, z_h: Tensor, tile: int) -> Tensor:
    if not _tiled(z_h, tile, DECODER_PAD):
        return model.decode(z_h)
    vae: Any = model.get_submodule("vae")
    factor = model.facts.factor
    hidden = z_h / model.facts.scaling
    hidden = hidden if vae.post_quant_conv is None else vae.post_quant_conv(hidden)
    places = tiles(z_h.shape[2], z_h.shape[3], tile, DECODER_PAD)
    return _joined(tiled_vae.decoder(vae), hidden, places, lambda pixel: pixel * factor)


def _tiled(x: Tensor, tile: int, pad: int) -> bool:
    return max(x.shape[2:]) > 2 * pad + tile


def _joined(
    network: Callable[[Tensor], tiled_vae.Steps], x: Tensor, places: list[Tile], scaled: Callable[[int], int]
) -> Tensor:
    """The network's output for ``x``, put together from its tiles; ``scaled`` maps input to output positions."""
    outputs = tiled_vae.run(network, [x[:, :, place.rows.seen, place.columns.seen] for place in places])
    size = scaled(x.shape[2]), scaled(x.shape[3])
    joined = torch.zeros((1, outputs[0].shape[1], *size), dtype=x.dtype, device=x.device)
    for place, output in zip(places, outputs, strict=True):
        target, source = [], []
        for span in place:
            kept = slice(scaled(span.kept.start), scaled(span.kept.stop))
            offset = scaled(span.seen.start)
            target.append(kept)
            source.append(slice(kept.start - offset, kept.stop - offset))
        joined[:, :, *target] = output[:, :, *source]
    return joined
