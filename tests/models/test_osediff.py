"""The real backbone's loader against what the official code computed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from qartsr.errors import QartsrError
from qartsr.models import OneStepSR
from qartsr.models.lora import merge_lora, read_lora
from qartsr.models.osediff import load_osediff, prompt_embedding


@pytest.fixture(scope="module")
def osediff(parity: Path) -> OneStepSR:
    prompt = json.loads((parity / "text" / "prompts.json").read_text())[0]["prompt"]
    return load_osediff(parity / "sd21_tiny", parity / "osediff.pkl", "none", prompt)


def test_prompt_embeddings_equal_the_official(parity: Path) -> None:
    expected = load_file(parity / "text" / "text_embeddings.safetensors")
    for entry in json.loads((parity / "text" / "prompts.json").read_text()):
        ours = prompt_embedding(parity / "sd21_tiny", entry["prompt"])
        assert torch.allclose(ours, expected[f"prompt_embeds.{entry['index']}"], atol=1e-5), entry["prompt"]


def test_merged_weights_equal_the_official(parity: Path, osediff: OneStepSR) -> None:
    ours = {**{f"unet.{k}": v for k, v in osediff.unet.state_dict().items()}}
    ours |= {f"vae.{k}": v for k, v in osediff.vae.state_dict().items()}
    samples = load_file(parity / "merged_weight_samples.safetensors")
    compared = 0
    for key, value in samples.items():
        if key.endswith(".merged"):
            name = key.removesuffix(".merged")
            match = [n for n in ours if n in (name, f"{name}.weight", f"unet.{name}", f"vae.{name}")]
            assert match, name
            assert torch.allclose(ours[match[0]], value, atol=1e-6), name
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize("name", ["img1_square", "img2_nonsquare", "img3_not_div8", "img4_below_min"])
def test_every_intermediate_equals_the_official(parity: Path, osediff: OneStepSR, name: str) -> None:
    expected = load_file(parity / "cases" / "unmerged_untiled" / "tensors" / f"{name}.safetensors")
    with torch.no_grad():
        posterior = osediff.vae.encode(expected["lq"]).latent_dist
        z_l = osediff.scaling * (posterior.mean + posterior.std * expected["noise_encode"])
        noise = osediff.predict_noise(z_l)
        z_h = osediff.step(z_l, noise)
        image = osediff.decode(z_h)
    ours = {"z_L": z_l, "model_pred": noise, "z_H": z_h, "decoded_raw": image}
    for key, tolerance in {"z_L": 1e-4, "model_pred": 2e-4, "z_H": 3e-3, "decoded_raw": 3e-4}.items():
        assert (ours[key] - expected[key]).abs().max() <= tolerance, key
    png = np.array(Image.open(parity / "cases" / "unmerged_untiled" / "nofix" / f"{name}.png").convert("RGB"))
    pixels = ((image.clamp(-1, 1) * 0.5 + 0.5) * 255)[0].permute(1, 2, 0).numpy().astype(np.uint8)
    assert np.abs(pixels.astype(int) - png.astype(int)).max() <= 1


def test_a_missing_part_is_named(parity: Path, tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match="no folder 'unet'"):
        load_osediff(tmp_path, parity / "osediff.pkl", "none")
    with pytest.raises(QartsrError, match="does not exist"):
        read_lora(tmp_path / "none.pkl")


def test_a_truncated_checkpoint_is_refused(parity: Path, tmp_path: Path) -> None:
    data = (parity / "osediff.pkl").read_bytes()
    (tmp_path / "cut.pkl").write_bytes(data[: len(data) // 2])
    with pytest.raises(QartsrError, match="not a usable checkpoint"):
        read_lora(tmp_path / "cut.pkl")


def test_the_wrong_key_is_named(parity: Path, osediff: OneStepSR) -> None:
    state = read_lora(parity / "osediff.pkl")["state_dict_vae"]
    with pytest.raises(QartsrError, match="unknown key 'surprise'"):
        merge_lora(osediff.vae, {"surprise": torch.ones(1)}, 4, "file")
    with pytest.raises(QartsrError, match="names no layer"):
        merge_lora(osediff.unet, state, 4, "file")
    with pytest.raises(QartsrError, match="not 8"):
        merge_lora(osediff.vae, state, 8, "file")


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    torch.save({"rank_unet": shutil.which}, tmp_path / "evil.pkl")
    with pytest.raises(QartsrError, match="not a usable checkpoint"):
        read_lora(tmp_path / "evil.pkl")
