"""A Stable Diffusion folder and an OSEDiff checkpoint, as small as they come and unlike the published sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

RANKS = {"unet": 6, "vae": 3}


def write_base(folder: Path, **unet: Any) -> Path:
    """Random weights in diffusers layout: 2 UNet levels, a VAE with f = 4, a text encoder 12 wide with 20 positions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 16, 8),
            latent_channels=4,
            norm_num_groups=4,
            layers_per_block=1,
        )
        settings: dict[str, Any] = {
            "block_out_channels": (12, 18),
            "attention_head_dim": (3, 2),
            "norm_num_groups": 6,
            "cross_attention_dim": 12,
            "layers_per_block": 1,
        }
        made = UNet2DConditionModel(
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            use_linear_projection=True,
            **(settings | unet),
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=514, hidden_size=12, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                max_position_embeddings=20, bos_token_id=512, eos_token_id=513, pad_token_id=0,
            )
        )  # fmt: skip
    for name, part in (("unet", made), ("vae", vae), ("text_encoder", text)):
        part.save_pretrained(folder / name)
    _write_tokenizer(folder / "tokenizer")
    scheduler = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "trained_betas": None}
    _json(folder / "scheduler" / "scheduler_config.json", scheduler | {"num_train_timesteps": 1000})
    return folder


def _write_tokenizer(folder: Path) -> None:
    """Bytes only, no merges: each of the 256 symbols alone and at the end of a word."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(code) for code in printable] + [chr(256 + index) for index in range(256 - len(printable))]
    words = [*symbols, *(symbol + "</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    _json(folder / "vocab.json", {word: index for index, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    _json(folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77})


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def checkpoint(base: Path) -> dict[str, Any]:
    """OSEDiff's published layout for the folder, random numbers, some modules listed twice as in the original."""
    generator = torch.Generator().manual_seed(1)
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    vae = AutoencoderKL.from_pretrained(base / "vae")
    lists: dict[str, list[str]] = {name: [] for name in ("encoder", "decoder", "others")}
    for name in _layers(unet):
        if "time_emb" not in name:
            place = "encoder" if name.startswith(("conv_in", "down")) else "others" if "mid" in name else "decoder"
            lists[place].append(name)
    encoder = [name for name in _layers(vae) if name.startswith("encoder.") or name == "quant_conv"]
    state = {
        key: value for place, names in lists.items() for key, value in _paths(unet, "unet", place, names, generator)
    }
    for key in ("weight", "bias"):
        shape = unet.get_parameter(f"conv_in.{key}").shape
        state[f"conv_in.base_layer.{key}"] = torch.randn(shape, generator=generator) / 8
    return {
        "rank_unet": RANKS["unet"],
        "rank_vae": RANKS["vae"],
        **{f"unet_lora_{place}_modules": names for place, names in lists.items()},
        "vae_lora_encoder_modules": [name for name in encoder for _ in range(2)],
        "state_dict_unet": state,
        "state_dict_vae": dict(_paths(vae, "vae", "encoder", encoder, generator)),
    }


def _layers(part: nn.Module) -> list[str]:
    return [name for name, layer in part.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def _paths(part: nn.Module, kind: str, place: str, names: list[str], generator: torch.Generator) -> Any:
    for name in names:
        weight = part.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        pointwise = (1,) * (weight.dim() - 2)
        yield f"{name}.lora_A.default_{place}.weight", _random((RANKS[kind], *weight.shape[1:]), generator)
        yield f"{name}.lora_B.default_{place}.weight", _random((weight.shape[0], RANKS[kind], *pointwise), generator)


def _random(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator) * 0.1
