"""UNet and VAE from a folder in diffusers layout: every weight present and fitting, and the parts made for each other.

diffusers only warns of weights that are missing and gives them random values; here that is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qartsr.errors import QartsrError
from qartsr.files import read_object
from qartsr.models.sd_unet.diffusers_imports import AutoencoderKL, UNet2DConditionModel
from qartsr.models.sd_unet.schedule import STEPS

_AGAIN = "download the folder again"
_SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": STEPS,
    "prediction_type": "epsilon",
}


def load_components(base: Path) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """(UNet, VAE) in fp32. Raises QartsrError when a weight does not fit its config.json or the parts do not agree."""
    unet, vae = load_unet(base), load_vae(base)
    _check_latents(base, unet, vae)
    _check_context(base, unet)
    _check_schedule(base)
    return unet, vae


def load_unet(base: Path) -> UNet2DConditionModel:
    """The UNet alone, fp32. Raises QartsrError naming the weight that is missing or unknown."""
    return load_part(UNet2DConditionModel, base / "unet")


def load_vae(base: Path) -> AutoencoderKL:
    """The VAE alone, fp32. Raises QartsrError naming the weight that is missing or unknown."""
    return load_part(AutoencoderKL, base / "vae")


def load_part(kind: Any, folder: Path) -> Any:
    """A diffusers network from its folder, fp32. Raises QartsrError naming the weight that is missing or unknown."""
    if not folder.is_dir():
        raise QartsrError("does not exist", str(folder), "name a Stable Diffusion folder in diffusers layout")
    try:
        part, report = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, torch_dtype=torch.float32
        )
    except Exception as error:  # whatever diffusers makes of a damaged folder
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise QartsrError(f"cannot be loaded ({reason})", str(folder), _AGAIN) from error
    for fault, keys in (("lacks the weight", "missing_keys"), ("has the unknown weight", "unexpected_keys")):
        if report[keys]:
            raise QartsrError(f"{fault} {min(report[keys])!r} according to its config.json", str(folder), _AGAIN)
    return part


def _check_latents(base: Path, unet: Any, vae: Any) -> None:
    channels = {unet.config.in_channels, unet.config.out_channels, vae.config.latent_channels}
    if len(channels) > 1:
        raise QartsrError(
            f"the UNet maps {unet.config.in_channels} to {unet.config.out_channels} channels, the VAE's latent has "
            f"{vae.config.latent_channels}",
            str(base),
            "take UNet and VAE of one model",
        )


def _check_context(base: Path, unet: Any) -> None:
    width = read_object(base / "text_encoder" / "config.json").get("hidden_size")
    if width != unet.config.cross_attention_dim:
        raise QartsrError(
            f"the UNet attends to {unet.config.cross_attention_dim} features, the text encoder gives {width}",
            str(base),
            "take UNet and text encoder of one model",
        )


def _check_schedule(base: Path) -> None:
    """SD 2.1 (768) differs from 2.1-base in nothing but this: it predicts velocity."""
    path = base / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        return
    config = read_object(path)
    for key, expected in _SCHEDULE.items():
        if config.get(key, expected) != expected:
            raise QartsrError(f"{key} is {config[key]!r}, not {expected!r}", str(path), "take SD 2.1-base")
