"""Stable Diffusion 2.1-base with OSEDiff's LoRA, as a :class:`SDUNet`.

OSEDiff's checkpoint (``osediff.pkl``) is read without running code and checked key by key. Its layout, as the official
code saves it: lists of module names ``{vae_lora_encoder,unet_lora_encoder,unet_lora_decoder,
unet_lora_others}_modules`` (with repetitions), ranks ``rank_unet`` and ``rank_vae``, and ``state_dict_unet`` /
``state_dict_vae`` with ``MODULE.lora_A.ADAPTER.weight``, ``MODULE.lora_B.ADAPTER.weight`` and, for the UNet's conv_in,
which OSEDiff trains whole, ``conv_in.base_layer.{weight,bias}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.models.adapters import PUBLISHED, Adapters, attach, fold, unpickled
from qartsr.models.sd_unet.model import SDUNet
from qartsr.models.sd_unet.pretrained import base_folder, load_components, prompt_embedding

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


_LISTS = {
    "unet": {
        "unet_lora_encoder_modules": "default_encoder",
        "unet_lora_decoder_modules": "default_decoder",
        "unet_lora_others_modules": "default_others",
    },
    "vae": {"vae_lora_encoder_modules": "default_encoder"},
}
"""Component -> list of modules -> name of their adapter."""
_TRAINED_WHOLE = {"unet": ("conv_in.weight", "conv_in.bias"), "vae": ()}
_FIELDS = {"rank_unet": int, "rank_vae": int, "state_dict_unet": dict, "state_dict_vae": dict} | {
    name: list for lists in _LISTS.values() for name in lists
}


class Checkpoint(NamedTuple):
    """The whole file."""

    unet: Adapters
    vae: Adapters


def read_lora(path: Path) -> Checkpoint:
    """The checkpoint, complete. Raises QartsrError naming the first field or key that is missing, unknown or unusable.

    Whether the keys fit a model is checked by :func:`qartsr.models.adapters.attach`.
    """
    content = _content(path)
    for field, kind in _FIELDS.items():
        if field not in content:
            raise QartsrError(f"lacks {field}", str(path), PUBLISHED)
        if not isinstance(content[field], kind):
            raise QartsrError(f"{field} is no {kind.__name__}", str(path), PUBLISHED)
        if kind in (list, dict) and not all(isinstance(name, str) for name in content[field]):
            raise QartsrError(f"{field} holds what is no name", str(path), PUBLISHED)
    return Checkpoint(_adapters(content, "unet", path), _adapters(content, "vae", path))


def _content(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise QartsrError("does not exist", str(path), "download OSEDiff's checkpoint, or correct its path")
    content = unpickled(path, "checkpoint", "download it again")
    if not isinstance(content, dict):
        raise QartsrError("is not a usable checkpoint (no dictionary)", str(path), PUBLISHED)
    return content


def _adapters(content: dict[str, Any], part: str, path: Path) -> Adapters:
    state, where = content[f"state_dict_{part}"], f"{path}, state_dict_{part}"
    expected = _expected_keys(content, part)
    for key in expected:
        if key not in state:
            raise QartsrError(f"lacks the key {key!r}", where, PUBLISHED)
    for key, value in state.items():
        if key not in expected:
            raise QartsrError(f"has the unknown key {key!r}", where, PUBLISHED)
        if not _finite(value):
            raise QartsrError(f"key {key!r} holds no finite numbers", where, PUBLISHED)
    if content[f"rank_{part}"] < 1:
        raise QartsrError(f"rank_{part} is {content[f'rank_{part}']}", str(path), PUBLISHED)
    return Adapters(content[f"rank_{part}"], dict(state), where)


def _finite(value: Any) -> bool:
    """Whether it is a plain tensor of finite numbers: neither sparse, quantized nor without storage."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return False
    return value.is_floating_point() and value.is_contiguous() and bool(value.isfinite().all())


def _expected_keys(content: dict[str, Any], part: str) -> dict[str, None]:
    """What the lists of modules promise, in their order and without repetitions."""
    keys: dict[str, None] = {}
    adapted = set()
    for field, adapter in _LISTS[part].items():
        for module in content[field]:
            keys |= dict.fromkeys(f"{module}.lora_{side}.{adapter}.weight" for side in "AB")
            adapted.add(module)
    for parameter in _TRAINED_WHOLE[part]:
        module, _, name = parameter.rpartition(".")
        keys[f"{module}.base_layer.{name}" if module in adapted else parameter] = None
    return keys
