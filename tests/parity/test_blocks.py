"""The output of every recorded block inside text encoder, VAE and UNet, for one image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from qartsr.models import OneStepSR
from qartsr.models.sd_unet.pretrained import text_encoder, tokens
from qartsr.upscale.official import Tiling, restore
from tests.parity.cases import CASES, PROMPT, RELATIVE, relative, tensors

TEXT = {"text.embeddings": "embeddings", **{f"text.layers.{n}": f"encoder.layers.{n}" for n in range(3)}}


def test_every_recorded_block(parity: Path, models: dict[bool, OneStepSR]) -> None:
    expected = load_file(parity / "debug_img1_unmerged_untiled.safetensors")
    tokenizer, encoder = text_encoder(parity / "sd21_tiny")
    text = getattr(encoder, "text_model", encoder)  # older transformers wrap it
    model, seen = models[False], dict[str, Tensor]()
    names = [name for name in expected if name not in TEXT]
    hooks = [_record(model, name, name, seen) for name in names] + [
        _record(text, inner, name, seen) for name, inner in TEXT.items()
    ]
    given = tensors(parity, CASES[0], "img1_square")
    with torch.no_grad():
        encoder(tokens(tokenizer, encoder, PROMPT))
    restore(model, given["lq"], given["noise_encode"], Tiling())
    for hook in hooks:
        hook.remove()
    assert set(seen) == set(expected)
    far = {name: relative(seen[name], value) for name, value in expected.items()}
    assert not {name: distance for name, distance in far.items() if distance > RELATIVE}


def _record(root: nn.Module, path: str, name: str, seen: dict[str, Tensor]) -> Any:
    def hook(_: nn.Module, inputs: Any, output: Any) -> None:
        seen.setdefault(name, output[0] if isinstance(output, tuple) else output)

    return root.get_submodule(path).register_forward_hook(hook)
