"""Stable Diffusion 2.1-base with OSEDiff's LoRA, as a :class:`SDUNet`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qartsr.models.adapters import attach, fold
from qartsr.models.base import base_folder
from qartsr.models.components import load_components
from qartsr.models.lora import read_lora
from qartsr.models.sd_unet.model import SDUNet
from qartsr.models.text import prompt_embedding

TIMESTEP = 999
"""OSEDiff's scheduler index."""


def load_osediff(
    base: str | Path,
    lora: Path,
    align: str,
    prompt: str = "",
    *,
    merge: bool = True,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
) -> SDUNet:
    """The model in evaluation mode, fp32, without gradients. Raises QartsrError naming what is missing or unfitting.

    Parameters
    ----------
    base: a folder in diffusers layout, or a hub id; ``revision`` and ``sha256`` as in :func:`base_folder`.
    lora: OSEDiff's checkpoint.
    prompt: the text of the fixed embedding; "" is PassionSR's.
    merge: fold the LoRA into the weights; else it stays as low-rank paths (:mod:`qartsr.models.adapters`).
    """
    checkpoint = read_lora(lora)
    folder = base_folder(base, revision, sha256)
    unet, vae = load_components(folder)
    for part, adapters in ((unet, checkpoint.unet), (vae, checkpoint.vae)):
        attach(part, adapters)
        if merge:
            fold(part)
    return SDUNet(unet, vae, prompt_embedding(folder, prompt), TIMESTEP, align).eval().requires_grad_(False)
