"""OSEDiff's checkpoint (``osediff.pkl``): read without running code, check key by key, merge into the weights.

Layout: lists ``{vae_lora_encoder,unet_lora_encoder,unet_lora_decoder,unet_lora_others}_modules``, ranks
``rank_unet`` and ``rank_vae``, and ``state_dict_unet`` / ``state_dict_vae`` with ``MODULE.lora_A.ADAPTER.weight``,
``MODULE.lora_B.ADAPTER.weight`` and ``MODULE.base_layer.{weight,bias}`` (the UNet's conv_in is stored whole).
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qartsr.errors import QartsrError

ALPHA = 8.0
"""peft's default ``lora_alpha``, which OSEDiff never sets: W + (8 / rank) B A."""
_FIELDS = ("rank_unet", "rank_vae", "state_dict_unet", "state_dict_vae")


def read_lora(path: Path) -> dict[str, Any]:
    """The checkpoint as plain tensors, lists and ints. Raises QartsrError for anything else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise QartsrError(
            "does not exist", str(path), "download OSEDiff's checkpoint, or correct backbone.lora"
        ) from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0][:160]
        raise QartsrError(f"is not a usable checkpoint ({reason})", str(path), "download it again") from error
    missing = [field for field in _FIELDS if not isinstance(content, dict) or field not in content]
    if missing:
        raise QartsrError(f"lacks {', '.join(missing)}", str(path), "use the published osediff.pkl")
    return dict(content)


def merge_lora(part: nn.Module, state: dict[str, Tensor], rank: int, where: str) -> None:
    """Merge one component's adapters in place. Every key must be used and fit; the first that does not is named."""
    weights = dict(part.named_parameters())
    left = dict(state)
    with torch.no_grad():
        for key in [key for key in state if ".base_layer." in key]:
            name = key.replace(".base_layer.", ".")
            _fitting(weights, name, left[key].shape, key, where).copy_(left.pop(key))
        for key in [key for key in state if ".lora_A." in key]:
            partner = key.replace(".lora_A.", ".lora_B.")
            down, up = left.pop(key), left.pop(partner, None)
            if up is None:
                raise QartsrError(f"lacks the key {partner!r}", where, "use the published osediff.pkl")
            product = _product(up, down, rank, key, where)
            name = key.split(".lora_A.")[0] + ".weight"
            _fitting(weights, name, product.shape, key, where).add_(product, alpha=ALPHA / rank)
    if left:
        raise QartsrError(f"has the unknown key {sorted(left)[0]!r}", where, "use the published osediff.pkl")


def _product(up: Tensor, down: Tensor, rank: int, key: str, where: str) -> Tensor:
    if down.shape[0] != rank or up.shape[1] != rank:
        raise QartsrError(f"key {key!r} has rank {down.shape[0]}, not {rank}", where, "use the published osediff.pkl")
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def _fitting(weights: dict[str, nn.Parameter], name: str, shape: torch.Size, key: str, where: str) -> nn.Parameter:
    if name not in weights:
        raise QartsrError(f"key {key!r} names no layer of the model", where, "check that base and LoRA belong together")
    if weights[name].shape != shape:
        raise QartsrError(
            f"key {key!r} has shape {tuple(shape)}, the model's layer {tuple(weights[name].shape)}",
            where,
            "check that base and LoRA belong together",
        )
    return weights[name]
