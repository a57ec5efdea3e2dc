"""Merged weights, latent tile weights and prompt embeddings against the official ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qartsr.models import OneStepSR
from qartsr.models.adapters import Adapted
from qartsr.models.sd_unet.pretrained import prompt_embedding
from qartsr.upscale.official.tiled_unet import weights
from tests.parity.cases import RELATIVE, prompts, relative


def test_merged_weights(parity: Path, models: dict[bool, OneStepSR]) -> None:
    samples = load_file(parity / "merged_weight_samples.safetensors")
    for name, value in samples.items():
        layer, _, kind = name.rpartition(".")
        merged, beside = (models[merge].get_submodule(layer) for merge in (True, False))
        assert isinstance(beside, Adapted)
        ours = merged.weight if kind == "merged" else beside.base_layer.weight
        assert isinstance(ours, torch.Tensor)
        assert relative(ours, value) <= RELATIVE, name
        if kind == "base":
            assert torch.equal(ours, value), name


def test_latent_tile_weights(parity: Path) -> None:
    for name, value in load_file(parity / "latent_tile_weights.safetensors").items():
        ours = weights(int(name.rpartition(".")[2]))
        assert ours.dtype == value.dtype == torch.float64
        assert relative(ours, value) <= 1e-14, name


@pytest.mark.parametrize("index", range(6))
def test_prompt_embeddings(parity: Path, index: int) -> None:
    expected = load_file(parity / "text" / "text_embeddings.safetensors")[f"prompt_embeds.{index}"]
    assert relative(prompt_embedding(parity / "sd21_tiny", prompts(parity)[index]), expected) <= RELATIVE
