"""A model as a folder of diffusers' own: diffusers loads it by itself and makes the same pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from qartsr import OneStepSRPipeline, QartsrError
from qartsr.files import sha256_tree
from qartsr.models.sd_unet.plain import write_diffusers
from qartsr.packing import load_package, write_package
from tests.packing.tiny import quantize, recipe, tiny_model


@pytest.mark.parametrize("kind", ["none", "wavelet", "adain"])
def test_diffusers_makes_the_same_pictures(kind: str, tmp_path: Path) -> None:
    model = tiny_model()
    model.align = kind
    write_diffusers(model, tmp_path / "plain")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "plain", trust_remote_code=True)
    pixels = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    expected = np.asarray(OneStepSRPipeline(model, tile=0)(pixels)).astype(int)
    results = loaded([Image.fromarray(pixels)] * 2, output_type="np").images
    assert results.shape == (2, 52, 68, 3)
    assert np.abs(np.rint(results[0] * 255) - expected).max() <= 1
    low = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    told: list[int] = []
    sampled = [
        loaded(low, torch.Generator().manual_seed(seed), "pt", callback_on_step_end=lambda *each: told.append(each[2]))
        for seed in (1, 1, 2)
    ]
    assert sampled[0].images.shape == (1, 3, 52, 68) and told == [model.timestep] * 3
    assert torch.equal(sampled[0].images, sampled[1].images) and not torch.equal(sampled[0].images, sampled[2].images)
    loaded.save_pretrained(tmp_path / "again")
    again = DiffusionPipeline.from_pretrained(tmp_path / "plain", trust_remote_code=True, torch_dtype=torch.bfloat16)
    assert again(Image.fromarray(pixels)).images[0].size == (68, 52)
    write_diffusers(model, tmp_path / "twice")
    assert sha256_tree(tmp_path / "plain") == sha256_tree(tmp_path / "twice")


def test_what_diffusers_has_no_modules_for_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(QartsrError, match="is there already"):
        write_diffusers(model, tmp_path / "full")
    write_package(tmp_path / "p", model, quantize(model, "w4a4", recipe()), {})
    with pytest.raises(QartsrError, match="is quantized or folded, which diffusers cannot load"):
        write_diffusers(load_package(tmp_path / "p"), tmp_path / "plain")
    assert not (tmp_path / "plain").exists()
