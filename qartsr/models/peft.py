"""OMGSR-S and HYPIR: Stable Diffusion 2.1-base with low-rank paths that peft stored, each at a timestep of its own.

Both are OSEDiff's step (Eq. 6 of QArtSR) elsewhere: OMGSR-S starts where the noise is about as strong as what the LR
lacks, T = 273; HYPIR is told T = 200, and its VAE is untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from qartsr.errors import QartsrError
from qartsr.files import read_object
from qartsr.models.adapters import Adapters, attach, fold, unpickled
from qartsr.models.sd_unet.model import SDUNet
from qartsr.models.sd_unet.pretrained import base_folder, load_components, prompt_embedding

OMGSR_TIMESTEP, HYPIR_TIMESTEP = 273, 200
_DO = "use the files that are published"
_SIDES = (".lora_A.", ".lora_B.")


def load_omgsr(
    base: str | Path,
    lora: Path,
    align: str,
    prompt: str = "",
    *,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
) -> SDUNet:
    """OMGSR-S at 512 pixels, as :func:`qartsr.models.sd_unet.osediff.load_osediff` gives OSEDiff.

    ``lora``: folder with ``unet_lora_adapter`` and ``vae_encoder_lora_adapter``, each with adapter_config.json and
    adapter_model.safetensors. Raises QartsrError naming what is missing or unfitting.
    """
    folder = base_folder(base, revision, sha256)
    unet, vae = load_components(folder)
    for part, name in ((unet, "unet_lora_adapter"), (vae.encoder, "vae_encoder_lora_adapter")):
        _merge(part, _stored(lora / name))
    return _model(unet, vae, folder, prompt, OMGSR_TIMESTEP, align)


def load_hypir(
    base: str | Path,
    lora: Path,
    align: str,
    prompt: str = "",
    *,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
) -> SDUNet:
    """HYPIR on Stable Diffusion 2.1-base. ``lora``: ``HYPIR_sd2.pth``, whose alpha equals its rank."""
    folder = base_folder(base, revision, sha256)
    unet, vae = load_components(folder)
    content = unpickled(lora, "checkpoint", _DO)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise QartsrError("is not a usable checkpoint (no dictionary of tensors)", str(lora), _DO)
    _merge(unet, _adapters(content, str(lora), None))
    return _model(unet, vae, folder, prompt, HYPIR_TIMESTEP, align)


def _stored(folder: Path) -> Adapters:
    """A folder of peft's; its names stand below ``base_model.model.`` and lack the adapter's."""
    config, path = read_object(folder / "adapter_config.json", "r", "lora_alpha"), folder / "adapter_model.safetensors"
    for key in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern"):
        if config.get(key):
            raise QartsrError(f"{key} is not supported", str(folder / "adapter_config.json"), _DO)
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise QartsrError(f"cannot be read ({error})", str(path), _DO) from error
    named: dict[str, Any] = {}
    for key, value in stored.items():
        name = key.removeprefix("base_model.model.")
        named[f"{name.removesuffix('.weight')}.default.weight"] = value
    return _adapters(named, str(path), float(config["lora_alpha"]))


def _adapters(state: Mapping[str, Tensor], where: str, alpha: float | None) -> Adapters:
    """Checked: low-rank factors only, finite, of one rank; ``alpha`` None: as large as the rank."""
    for key, value in state.items():
        if not any(side in key for side in _SIDES) or not key.endswith(".default.weight"):
            raise QartsrError(f"has the unknown key {key!r}", where, _DO)
        if not value.is_floating_point() or not bool(value.isfinite().all()):
            raise QartsrError(f"key {key!r} holds no finite numbers", where, _DO)
    ranks = {value.shape[0] for key, value in state.items() if ".lora_A." in key}
    if len(ranks) != 1:
        raise QartsrError(f"has {len(ranks) or 'no'} ranks, not one", where, _DO)
    rank = ranks.pop()
    return Adapters(rank, {key: value.float() for key, value in state.items()}, where, rank if alpha is None else alpha)


def _merge(part: nn.Module, adapters: Adapters) -> None:
    attach(part, adapters)
    fold(part)


def _model(unet: Any, vae: Any, folder: Path, prompt: str, timestep: int, align: str) -> SDUNet:
    return SDUNet(unet, vae, prompt_embedding(folder, prompt), timestep, align).eval().requires_grad_(False)
