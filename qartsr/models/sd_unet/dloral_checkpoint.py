"""DLoRAL's published checkpoint, merged into Stable Diffusion 2.1-base.

``model.pkl`` is read without running code and checked key by key. Its layout, as the official code
saves it: lists of module names ``unet_lora_{encoder,decoder,others}_modules_{quality,consistency}``, ranks
``lora_rank_unet_{quality,consistency}``, ``state_dict_unet``, the whole UNet with both LoRAs, and ``state_dict_bpp``,
SPyNet and retrieval beside networks that are never run. The VAE is Stable Diffusion's, unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qartsr.errors import QartsrError
from qartsr.models.adapters import Adapters, attach, fold, unpickled
from qartsr.models.sd_unet.diffusers_imports import UNet2DConditionModel
from qartsr.models.sd_unet.dloral import PUBLISHED, TIMESTEP, CrossFrame, DLoRAL
from qartsr.models.sd_unet.pretrained import base_folder, load_components, prompt_embedding
from qartsr.models.sd_unet.video import widened

_DO = "use the published model.pkl"
_STAGES, _PLACES = ("quality", "consistency"), ("encoder", "decoder", "others")
_NEVER_RUN = ("feat_extract.", "weight_predict.", "weight_predict_final.", "reconstruction_feat.", "conv_hr.",
              "conv_last.")  # fmt: skip
_CONSTANTS = ("spynet.mean", "spynet.std")
_RETRIEVAL = {"query": "query_conv", "key": "key_conv", "value": "value_conv", "out": "proj_out",
              "threshold": "threshold_fc"}  # fmt: skip


def load_dloral(
    base: str | Path,
    checkpoint: Path,
    align: str,
    prompt: str = "",
    *,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
) -> DLoRAL:
    """The model in evaluation mode, fp32, without gradients, both LoRAs folded in (the published script's stage 1).

    ``checkpoint``: ``model.pkl``; the rest as in :func:`qartsr.models.sd_unet.osediff.load_osediff`. The published
    script describes a clip by tags; here the prompt is fixed. Raises QartsrError naming what is missing or unfitting.
    """
    content = read_checkpoint(checkpoint)
    folder = base_folder(base, revision, sha256)
    unet, vae = load_components(folder)
    unet = widened(unet, unet.conv_in.weight.repeat(1, 2, 1, 1))  # the checkpoint has its own
    frames = CrossFrame.from_config(PUBLISHED)
    load_unet(unet, content, str(checkpoint))
    load_frames(frames, content["state_dict_bpp"], f"{checkpoint}, state_dict_bpp")
    model = DLoRAL(unet, vae, frames, prompt_embedding(folder, prompt), TIMESTEP, align)
    return model.eval().requires_grad_(False)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The file, its fields and tensors looked at. Raises QartsrError naming the first that is missing or unusable."""
    content: Any = unpickled(path, "checkpoint", _DO)
    if not isinstance(content, dict):
        raise QartsrError("is not a usable checkpoint (no dictionary)", str(path), _DO)
    ranks: dict[str, Any] = {f"lora_rank_unet_{stage}": int for stage in _STAGES}
    lists: dict[str, Any] = {f"unet_lora_{place}_modules_{stage}": list for place in _PLACES for stage in _STAGES}
    for field, kind in {**ranks, **lists, "state_dict_unet": dict, "state_dict_bpp": dict}.items():
        if field not in content:
            raise QartsrError(f"lacks {field}", str(path), _DO)
        value: Any = content[field]
        if not isinstance(value, kind) or (kind is int and value < 1):
            raise QartsrError(f"{field} is no {'rank' if kind is int else kind.__name__}", str(path), _DO)
        if kind is not int and not all(isinstance(name, str) for name in value):
            raise QartsrError(f"{field} holds what is no name", str(path), _DO)
        for key, tensor in value.items() if kind is dict else ():
            if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or not tensor.is_floating_point():
                raise QartsrError(f"{field}: key {key!r} is no tensor of numbers", str(path), _DO)
            if not bool(tensor.isfinite().all()):
                raise QartsrError(f"{field}: key {key!r} holds no finite numbers", str(path), _DO)
    return content


def load_unet(unet: UNet2DConditionModel, content: Mapping[str, Any], path: str) -> None:
    """The checkpoint's UNet into ``unet``, in place, LoRAs folded. Raises QartsrError naming the first misfit."""
    where = f"{path}, state_dict_unet"
    state: Mapping[str, Tensor] = content["state_dict_unet"]
    paths: dict[str, dict[str, Tensor]] = {stage: {} for stage in _STAGES}
    adapted = {name for place in _PLACES for name in content[f"unet_lora_{place}_modules_{_STAGES[0]}"]}
    whole, expected = dict[str, Tensor](), set[str]()
    for stage in _STAGES:
        for place in _PLACES:
            names = dict.fromkeys(content[f"unet_lora_{place}_modules_{stage}"])
            keys = {f"{name}.lora_{side}.default_{place}_{stage}.weight" for name in names for side in "AB"}
            if missing := keys - state.keys():
                raise QartsrError(f"lacks the key {min(missing)!r}", where, _DO)
            paths[stage] |= {key: state[key].float() for key in keys}
            expected |= keys
            adapted |= set(names)
    for key, value in state.items():
        if key not in expected:
            module, _, name = key.rpartition(".")
            plain = module.removesuffix(".base_layer")
            if module.endswith(".base_layer") != (plain in adapted):
                raise QartsrError(f"has the unknown key {key!r}", where, _DO)
            whole[f"{plain}.{name}"] = value
    _fill(unet, whole, where)
    for stage in _STAGES:
        attach(unet, Adapters(content[f"lora_rank_unet_{stage}"], paths[stage], where))
        fold(unet)


def load_frames(frames: CrossFrame, state: Mapping[str, Tensor], where: str) -> None:
    """SPyNet and retrieval of ``state_dict_bpp``, in place. Raises QartsrError naming the first misfit.

    Convolutions are (O, C, 7, 7) and (O, C, 1, 1), the threshold's weight is (1, width).
    """
    published = {_published(key): key for key in frames.state_dict()}
    found = dict[str, Tensor]()
    for key, value in state.items():
        if key in published:
            found[published[key]] = value
        elif key not in _CONSTANTS and not key.startswith(_NEVER_RUN):
            raise QartsrError(f"has the unknown key {key!r}", where, _DO)
    if missing := published.keys() - state.keys():
        raise QartsrError(f"lacks the key {min(missing)!r}", where, _DO)
    _fill(frames, found, where)


def _published(key: str) -> str:
    """The published name of a tensor of :class:`CrossFrame`: every second module of a level is its convolution."""
    if match := re.fullmatch(r"spynet\.levels\.(\d+)\.(\d+)\.(\w+)", key):
        return f"spynet.basic_module.{match[1]}.basic_module.{int(match[2]) // 2}.conv.{match[3]}"
    _, module, name = key.split(".")
    return f"cross_attn_module.{_RETRIEVAL[module]}.{name}"


def _fill(part: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    own = part.state_dict()
    for key, value in state.items():
        if key not in own:
            raise QartsrError(f"has the unknown key {key!r}", where, _DO)
        if own[key].shape != value.shape:
            shapes = f"{tuple(value.shape)}, the model {tuple(own[key].shape)}"
            raise QartsrError(f"key {key!r} has shape {shapes}", where, _DO)
    if missing := own.keys() - state.keys():
        raise QartsrError(f"lacks the key {min(missing)!r}", where, _DO)
    part.load_state_dict({key: value.float() for key, value in state.items()})
