"""Stable Diffusion 2.1-base in diffusers layout with OSEDiff's LoRA merged, as a :class:`OneStepSR`."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.models.lora import merge_lora, read_lora
from qartsr.models.one_step import OneStepSR

TIMESTEP = 999
"""OSEDiff's scheduler index."""


def load_osediff(base: Path, lora: Path, align: str, prompt: str = "") -> OneStepSR:
    """Load and merge. ``prompt`` "" is PassionSR's fixed empty embedding. Raises QartsrError naming what is missing."""
    for part in ("unet", "vae", "text_encoder", "tokenizer"):
        if not (base / part).is_dir():
            raise QartsrError(
                f"has no folder {part!r}", str(base), "point backbone.base at SD 2.1-base in diffusers layout"
            )
    try:
        unet = UNet2DConditionModel.from_pretrained(base / "unet", local_files_only=True)
        vae = AutoencoderKL.from_pretrained(base / "vae", local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise QartsrError(f"cannot be loaded ({reason})", str(base), "download the folder again") from error
    checkpoint = read_lora(lora)
    merge_lora(unet, checkpoint["state_dict_unet"], int(checkpoint["rank_unet"]), f"{lora}, state_dict_unet")
    merge_lora(vae, checkpoint["state_dict_vae"], int(checkpoint["rank_vae"]), f"{lora}, state_dict_vae")
    return OneStepSR(unet, vae, prompt_embedding(base, prompt), TIMESTEP, align).eval().requires_grad_(False)


def prompt_embedding(base: Path, prompt: str) -> Tensor:
    """(1, 77, D): the text encoder's last hidden state of ``prompt``, padded and cut to 77 tokens, unmasked."""
    from transformers import CLIPTextModel, CLIPTokenizer  # two seconds of import, needed only here

    try:
        tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer", local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(base / "text_encoder", local_files_only=True).eval()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise QartsrError(f"has no usable text encoder ({reason})", str(base), "download the folder again") from error
    tokens = tokenizer(prompt, max_length=77, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        embedding: Tensor = encoder(tokens)[0]
    return embedding
