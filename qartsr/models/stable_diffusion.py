"""Parts of a Stable Diffusion folder in diffusers layout, as they were published: no adapter, fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel

from qartsr.errors import QartsrError


def load_unet(base: Path) -> UNet2DConditionModel:
    """The UNet. Raises QartsrError naming what is missing."""
    return _load(UNet2DConditionModel, base / "unet")


def load_vae(base: Path) -> AutoencoderKL:
    """The VAE. Raises QartsrError naming what is missing."""
    return _load(AutoencoderKL, base / "vae")


def _load(kind: Any, folder: Path) -> Any:
    if not folder.is_dir():
        raise QartsrError("does not exist", str(folder), "name a Stable Diffusion folder in diffusers layout")
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise QartsrError(f"cannot be loaded ({reason})", str(folder), "download the folder again") from error
