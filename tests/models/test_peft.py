"""OMGSR-S and HYPIR from files in their published layout: every weight is W + (alpha / rank) B A, at their timestep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from qartsr.errors import QartsrError
from qartsr.models.peft import load_hypir, load_omgsr
from qartsr.models.sd_unet.pretrained import load_unet, load_vae
from qartsr.models.sd_unet.schedule import alphas_cumprod

ENDS = ("to_k", "to_q", "to_v", "to_out.0", "conv1", "proj_in")


def _paths(part: nn.Module, rank: int) -> dict[str, Tensor]:
    """Factors of the layers whose names end so, by ``MODULE.lora_A``."""
    dice, state = torch.Generator().manual_seed(rank), {}
    for name, layer in part.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and f".{name}".endswith(tuple(f".{end}" for end in ENDS)):
            outputs, *inputs = layer.weight.shape
            state[f"{name}.lora_A"] = torch.randn(rank, *inputs, generator=dice) / 8
            state[f"{name}.lora_B"] = torch.randn(outputs, rank, *(1 for _ in inputs[1:]), generator=dice) / 8
    return state


def _expected(part: nn.Module, paths: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    weights = {name: value.clone() for name, value in part.state_dict().items()}
    for name, b in paths.items():
        if name.endswith(".lora_B"):
            a, weight = paths[name.replace("lora_B", "lora_A")], name.replace("lora_B", "weight")
            weights[weight] += scale * (b.flatten(1) @ a.flatten(1)).reshape(weights[weight].shape)
    return weights


def _equal(part: nn.Module, expected: dict[str, Tensor]) -> None:
    assert part.state_dict().keys() == expected.keys()
    for name, value in part.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-5)


def test_hypir(base: Path, tmp_path: Path) -> None:
    """Only the UNet changes, by B A; other content is refused by name."""
    unet, path = load_unet(base), tmp_path / "HYPIR_sd2.pth"
    paths = _paths(unet, 5)
    state = {f"{name}.default.weight": value for name, value in paths.items()}
    torch.save(state, path)
    model = load_hypir(base, path, "wavelet")
    _equal(model.unet, _expected(unet, paths, 1.0))
    _equal(model.vae, load_vae(base).state_dict())
    assert model.timestep == 200 and model.step.signal == pytest.approx(float(alphas_cumprod()[200].sqrt()))
    some = next(iter(state))
    for said, change in (
        ("unknown key 'more'", {"more": torch.zeros(1)}),
        ("no finite numbers", {some: torch.full_like(state[some], torch.inf)}),
        ("2 ranks", {some: torch.zeros(4, *state[some].shape[1:])}),
        ("names no layer", {"nowhere.lora_A.default.weight": torch.zeros(5, 2)}),
    ):
        torch.save({**state, **change}, path)
        with pytest.raises(QartsrError, match=said):
            load_hypir(base, path, "wavelet")
    path.write_bytes(b"no checkpoint")
    with pytest.raises(QartsrError, match="is not a usable checkpoint"):
        load_hypir(base, path, "wavelet")


def _written(folder: Path, paths: dict[str, Tensor], rank: int, **more: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": 2 * rank, **more}))
    state = {f"base_model.model.{name}.weight": value for name, value in paths.items()}
    save_file(state, folder / "adapter_model.safetensors")


def test_omgsr(base: Path, tmp_path: Path) -> None:
    """UNet and VAE encoder change, by alpha / rank B A; the decoder does not."""
    unet, vae = load_unet(base), load_vae(base)
    unets, encoders = _paths(unet, 4), _paths(vae.encoder, 3)
    _written(tmp_path / "unet_lora_adapter", unets, 4)
    _written(tmp_path / "vae_encoder_lora_adapter", encoders, 3)
    model = load_omgsr(base, tmp_path, "adain")
    _equal(model.unet, _expected(unet, unets, 2.0))
    _equal(model.vae.encoder, _expected(vae.encoder, encoders, 2.0))
    _equal(model.vae.decoder, vae.decoder.state_dict())
    assert model.timestep == 273
    _written(tmp_path / "unet_lora_adapter", unets, 4, use_dora=True)
    with pytest.raises(QartsrError, match="use_dora is not supported"):
        load_omgsr(base, tmp_path, "adain")
    (tmp_path / "unet_lora_adapter" / "adapter_config.json").unlink()
    with pytest.raises(QartsrError, match=r"adapter_config\.json"):
        load_omgsr(base, tmp_path, "adain")
