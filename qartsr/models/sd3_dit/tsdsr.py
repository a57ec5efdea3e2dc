"""TSD-SR (2411.18263): its architecture, and the model from its published files beside Stable Diffusion 3-medium."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from qartsr.errors import QartsrError
from qartsr.models.adapters import Adapters, attach, fold, unpickled
from qartsr.models.folder import architecture, blank
from qartsr.models.sd3_dit.model import SD3DiT, joined_prompt
from qartsr.models.sd_unet.diffusers_imports import AutoencoderKL, SD3Transformer2DModel
from qartsr.models.sd_unet.pretrained import load_part

TIMESTEP = 1000
"""What the transformer is told."""
_TOKENS = 154
_ADAPTED = tuple(
    f".{name}"
    for name in (
        "to_k",
        "to_q",
        "to_v",
        "to_out.0",
        "add_q_proj",
        "add_k_proj",
        "add_v_proj",
        "proj",
        "linear",
        "proj_out",
    )
)
_WHOLE = ("encoder.", "quant_conv")
"""How names of adapted layers end in the transformer, and how they begin in the VAE."""
_PUBLISHED = "use the files that TSD-SR publishes"
_DIT = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


def tsdsr() -> dict[str, Any]:
    """SD3-medium's transformer and VAE (its config.json), one prompt of 154 tokens. The shift factor is never used."""
    columns = -(-_DIT["pooled_projection_dim"] // _TOKENS)
    context = (1, _TOKENS, _DIT["joint_attention_dim"] + columns)
    parts = {"kind": SD3DiT.kind, "transformer": _DIT, "vae": _VAE}
    return architecture(blank({**parts, "context": context, "timestep": TIMESTEP, "align": "wavelet"}))


ARCHITECTURES: Mapping[str, Callable[[], dict[str, Any]]] = {"tsdsr": tsdsr}
EDGE_LAYERS: Mapping[str, tuple[str, ...]] = {
    "tsdsr": (
        "transformer.pos_embed.proj",
        "transformer.time_text_embed.*",
        "transformer.context_embedder",
        "transformer.norm_out.linear",
        "transformer.proj_out",
        "vae.encoder.conv_in",
        "vae.encoder.conv_out",
        "vae.decoder.conv_out",
    )
}
"""Name -> patterns of the layers at 8 bits: what the image, the prompt and the time come in by and go out by."""


def load_tsdsr(base: Path, lora: Path, prompt: Path, align: str = "wavelet") -> SD3DiT:
    """The model in evaluation mode, fp32, without gradients, LoRA folded in. Raises QartsrError naming what is amiss.

    Parameters
    ----------
    base: Stable Diffusion 3-medium in diffusers layout; its folders ``transformer`` and ``vae`` are read.
    lora: folder with ``transformer.safetensors`` and ``vae.safetensors``, W + B A (alpha equals the rank). Keys of both
        begin with ``transformer.``, as the official code writes them.
    prompt: folder with ``prompt_embeds.pt`` (1, N, D) and ``pool_embeds.pt`` (1, P).
    """
    transformer = load_part(SD3Transformer2DModel, base / "transformer")
    vae = load_part(AutoencoderKL, base / "vae")
    for part, name in ((transformer, "transformer.safetensors"), (vae, "vae.safetensors")):
        adapters = _adapters(lora / name)
        _check_keys(part, adapters)
        attach(part, adapters)
        fold(part)
    dit: Any = transformer.config
    tokens = _embedding(prompt / "prompt_embeds.pt", 3, dit.joint_attention_dim)
    pooled = _embedding(prompt / "pool_embeds.pt", 2, dit.pooled_projection_dim)
    model = SD3DiT(transformer, vae, joined_prompt(tokens, pooled), TIMESTEP, align)
    return model.eval().requires_grad_(False)


def _adapters(path: Path) -> Adapters:
    """One file of low-rank factors by the names an adapted module has. Raises QartsrError for any other content."""
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise QartsrError(f"cannot be read ({error})", str(path), _PUBLISHED) from error
    state: dict[str, Tensor] = {}
    for key, value in stored.items():
        for side in (".lora_A.", ".lora_B."):
            if key.startswith("transformer.") and key.endswith(f"{side}weight"):
                state[key.removeprefix("transformer.").removesuffix("weight") + "default.weight"] = value.float()
                break
        else:
            raise QartsrError(f"has the unknown key {key!r}", str(path), _PUBLISHED)
        if not bool(value.isfinite().all()):
            raise QartsrError(f"key {key!r} holds no finite numbers", str(path), _PUBLISHED)
    ranks = {value.shape[0] for key, value in state.items() if ".lora_A." in key}
    if len(ranks) != 1:
        raise QartsrError(f"has {len(ranks) or 'no'} ranks, not one", str(path), _PUBLISHED)
    rank = ranks.pop()
    return Adapters(rank, state, str(path), alpha=float(rank))


def _check_keys(part: nn.Module, adapters: Adapters) -> None:
    """Exactly the layers that TSD-SR adapts, both factors of each. Raises QartsrError naming the first other key."""
    layers = (name for name, module in part.named_modules() if isinstance(module, nn.Conv2d | nn.Linear))
    whole = isinstance(part, AutoencoderKL)
    adapted = [name for name in layers if (name.startswith(_WHOLE) if whole else f".{name}".endswith(_ADAPTED))]
    expected = {f"{name}.lora_{side}.default.weight" for name in adapted for side in "AB"}
    for fault, keys in (("lacks", expected - adapters.state.keys()), ("has", adapters.state.keys() - expected)):
        if keys:
            key = f"transformer.{min(keys).replace('.default', '')}"
            raise QartsrError(f"{fault} the key {key!r}", adapters.where, _PUBLISHED)


def _embedding(path: Path, dimensions: int, width: int) -> Tensor:
    """A stored embedding of one prompt: ``dimensions`` with ``width`` features, fp32. Raises QartsrError."""
    found = unpickled(path, "embedding", _PUBLISHED)
    fits = isinstance(found, Tensor) and found.ndim == dimensions and found.shape[0] == 1 and found.shape[-1] == width
    if not fits or not found.is_floating_point() or not found.numel() or not bool(found.isfinite().all()):
        raise QartsrError(f"is no embedding of one prompt with {width} features", str(path), _PUBLISHED)
    return found.float()
