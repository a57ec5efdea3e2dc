"""UNet, VAE and text encoder: every weight present, and parts that belong together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qartsr.errors import QartsrError
from qartsr.models.sd_unet.pretrained import load_components, prompt_embedding, text_encoder, tokens
from tests.models.little import write_base

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture()
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "base"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reweigh(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_a_whole_folder_loads(base: Path) -> None:
    unet, vae = load_components(base)
    assert unet.dtype == vae.dtype == torch.float32


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_missing_weight_is_named(copy: Path, part: str) -> None:
    name = "conv_in.bias" if part == "unet" else "decoder.conv_out.weight"
    reweigh(copy / part / WEIGHTS, lambda weights: weights.pop(name))
    with pytest.raises(QartsrError, match=f"lacks the weight '{name}'"):
        load_components(copy)


def test_an_unknown_weight_is_named(copy: Path) -> None:
    reweigh(copy / "vae" / WEIGHTS, lambda weights: weights.update(surprise=torch.ones(1)))
    with pytest.raises(QartsrError, match="has the unknown weight 'surprise'"):
        load_components(copy)


def test_weights_that_do_not_fit_their_config_are_refused(copy: Path) -> None:
    edit(copy / "unet" / "config.json", block_out_channels=[12, 24])
    with pytest.raises(QartsrError, match=r"unet: cannot be loaded \("):
        load_components(copy)


def test_a_truncated_file_is_refused(copy: Path) -> None:
    path = copy / "unet" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(QartsrError, match=r"unet: cannot be loaded \("):
        load_components(copy)


def test_a_missing_config_is_refused(copy: Path) -> None:
    (copy / "vae" / "config.json").unlink()
    with pytest.raises(QartsrError, match=r"vae: cannot be loaded \("):
        load_components(copy)


def test_latent_channels_must_match(copy: Path, tmp_path: Path) -> None:
    other = write_base(tmp_path / "other", in_channels=6, out_channels=6)
    shutil.rmtree(copy / "unet")
    shutil.copytree(other / "unet", copy / "unet")
    with pytest.raises(QartsrError, match="the UNet maps 6 to 6 channels, the VAE's latent has 4"):
        load_components(copy)


def test_the_text_encoder_must_match(copy: Path) -> None:
    edit(copy / "text_encoder" / "config.json", hidden_size=16)
    with pytest.raises(QartsrError, match="the UNet attends to 12 features, the text encoder gives 16"):
        load_components(copy)


def test_a_model_that_predicts_velocity_is_refused(copy: Path) -> None:
    edit(copy / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    with pytest.raises(QartsrError, match="prediction_type is 'v_prediction', not 'epsilon'"):
        load_components(copy)


def test_prompts_of_any_text_and_length(base: Path) -> None:
    texts = ["", "a", "naïve — 東京 👩‍👧", "tree, " * 100, "<|endoftext|> !", "\x00\t\n"]
    found = [prompt_embedding(base, text) for text in texts]
    assert {tuple(each.shape) for each in found} == {(1, 20, 12)}  # what the encoder can see, not the tokenizer's 77
    assert all(not torch.equal(found[0], other) for other in found[1:4])
    assert all(bool(each.isfinite().all()) for each in found)


def test_a_prompt_that_is_no_text_is_refused(base: Path) -> None:
    with pytest.raises(QartsrError, match="is not valid Unicode"):
        tokens(*text_encoder(base), "bad \udcff byte")


def test_an_unusable_text_encoder_is_refused(copy: Path) -> None:
    reweigh(copy / "text_encoder" / "model.safetensors", lambda weights: weights.pop(min(weights)))
    with pytest.raises(QartsrError, match="lacks the weight"):
        prompt_embedding(copy, "")
    (copy / "text_encoder" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(QartsrError, match="has no usable text encoder"):
        prompt_embedding(copy, "")
    (copy / "tokenizer" / "vocab.json").write_text("{")
    with pytest.raises(QartsrError, match="has no usable text encoder"):
        prompt_embedding(copy, "")
