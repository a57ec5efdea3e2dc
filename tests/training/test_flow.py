"""The sample DiT's recipe: what it starts as, its crops, its two losses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qartsr.config.recipe import FlowConfig
from qartsr.data import Pair
from qartsr.data.clips import Scenes, stills
from qartsr.data.degradation import bicubic
from qartsr.data.pairs import enlarged, image_tensor
from qartsr.images import read_rgb
from qartsr.models import load_model
from qartsr.models.sd3_dit import SD3DiT, sample_dit
from qartsr.models.sd_unet import sample_backbone
from qartsr.training.autoencoder import Lesson
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.determinism import generator
from qartsr.training.distributed import Share
from qartsr.training.flow import Bank, flow_losses, make_bank, train_flow
from qartsr.training.loop import Curves
from qartsr.training.recipe_figures import restored


@pytest.fixture(scope="module")
def picture() -> Tensor:
    small = torch.rand(1, 3, 24, 28, generator=torch.Generator().manual_seed(0)) * 255
    return F.interpolate(small, size=(96, 112), mode="bicubic").round().clamp(0, 255).to(torch.uint8)[0]


@pytest.fixture()
def fresh() -> SD3DiT:
    return sample_dit(sample_backbone(999, "none", 1).vae, "none", 1).eval().requires_grad_(False)


def test_the_sample_starts_as_its_autoencoder(fresh: SD3DiT) -> None:
    count = sum(value.numel() for value in fresh.transformer.parameters())
    assert 4.0e6 < count < 4.5e6
    image = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert torch.equal(fresh(image), fresh.decode(fresh.encode(image)))


def test_stills_are_a_photograph_turned_with_the_photographs_own_lr(picture: Tensor) -> None:
    """A picture as large as a window with its margin has one place; each still is one of its eight turns."""
    square = picture[:, :64, :64].contiguous()
    hr, lq = stills(Scenes([Pair("smooth", square, square)]), 8, 32, generator(0, "stills"))
    images = (square, enlarged(bicubic(square)))
    whole = torch.stack([image[:, 16:48, 16:48].float() / 127.5 - 1 for image in images])
    flips = [whole, whole.flip(-1), whole.flip(-2), whole.flip(-1, -2)]
    turns = [*flips, *(turned.transpose(-1, -2) for turned in flips)]
    for sharp, low in zip(hr, lq, strict=True):
        fits = [turned for turned in turns if (turned[0] - sharp).abs().max() < 1e-6]
        assert len(fits) == 1
        assert (low - fits[0][1]).abs().max() <= 2 / 127.5 + 1e-6  # Pillow rounds between its two passes


def test_both_losses_fall_and_the_autoencoder_stays(root: Path, tmp_path: Path) -> None:
    """On one photograph, with the shipped autoencoder: to an untrained one a picture and its LR hardly differ."""
    fresh = sample_dit(load_model(root / "weights" / "sample").vae, "none", 1)
    image = image_tensor(read_rgb(root / "photographs" / "rocks.webp"))
    scenes = Scenes([Pair("rocks", image, image)])

    def batches(share: Share) -> tuple[Tensor, Tensor]:
        return stills(scenes, share.batch, share.crop, generator(0, "t", share.number % 2))

    asked = {"steps": 16, "phases": [{"share": 1.0, "batch": 4, "crop": 32}], "lr": 1e-3, "warmup": 2, "weight": 1}
    config = FlowConfig.model_validate(asked)
    lesson = Lesson("dit", batches, 0, Curves(lambda values, step: None), Checkpoint(tmp_path, 60))
    stored = {name: value.clone() for name, value in fresh.vae.state_dict().items()}
    with torch.no_grad():
        before = [flow_losses(fresh, config, lesson)(number) for number in range(4)]
    train_flow(fresh, config, lesson)
    with torch.no_grad():
        after = [flow_losses(fresh, config, lesson)(number) for number in range(4)]
    for name in ("l1", "flow"):
        assert sum(float(found[name]) for found in after) < sum(float(found[name]) for found in before), name
    assert all(torch.equal(value, stored[name]) for name, value in fresh.vae.state_dict().items())
    assert not any(parameter.requires_grad for parameter in fresh.parameters())


def test_a_banks_windows_are_of_one_place() -> None:
    numbered = torch.arange(3 * 2 * 8 * 8, dtype=torch.float16).view(3, 2, 8, 8)
    bank = Bank(numbered, numbered + 1, numbered + 2)
    low, taught, high = bank.windows(64, 4, generator(0, "windows"))
    assert low.shape == (64, 2, 4, 4) and low.dtype == torch.float32
    assert torch.equal(taught, low + 1) and torch.equal(high, low + 2)
    places = numbered.float().unfold(2, 4, 1).unfold(3, 4, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    chosen = {int((places == window).flatten(1).all(1).nonzero()) for window in low}
    assert len(chosen) > 30 and {place // 25 for place in chosen} == {0, 1, 2}, "of every crop, at many corners"
    (whole, *_), every = bank.windows(9, 8, generator(0, "whole")), {int(crop[0, 0, 0]) for crop in numbered}
    assert {int(window[0, 0, 0]) for window in whole} <= every


def test_the_teacher_is_learned_from_latents_that_are_made_once(root: Path, tmp_path: Path) -> None:
    """The shipped UNet's Z_H on one photograph; what is judged by latents comes closer to it, in its own steps too."""
    teacher = load_model(root / "weights" / "sample").eval().requires_grad_(False)
    fresh = sample_dit(teacher.vae, "none", 1)
    image = image_tensor(read_rgb(root / "photographs" / "rocks.webp"))
    scenes, asked = Scenes([Pair("rocks", image, image)]), list[Share]()

    def batches(share: Share) -> tuple[Tensor, Tensor]:
        asked.append(share)
        return stills(scenes, share.batch, share.crop, generator(0, "t", share.number))

    phases = [{"share": 0.9, "batch": 4, "crop": 32, "judged": "latent"}, {"share": 0.1, "batch": 2, "crop": 32}]
    values = {"steps": 40, "phases": phases, "lr": 5e-4, "warmup": 4, "bank": 9, "bank_crop": 48}
    config = FlowConfig.model_validate(values)
    lesson = Lesson("dit", batches, 0, Curves(lambda losses, step: None), Checkpoint(tmp_path, 60))
    bank = make_bank(teacher, config, lesson)
    assert [(share.number, share.batch, share.crop) for share in asked] == [(0, 8, 48), (8, 1, 48)]
    sharp, low = batches(Share(8, 1, 48, 0, 1))
    with torch.no_grad():
        z_l = teacher.encode(low)
        for part, expected in zip(bank, (z_l, teacher.denoise(z_l), teacher.encode(sharp)), strict=True):
            assert torch.equal(part[8:], expected.half())
    asked.clear()
    with torch.no_grad():
        before = sum(float(flow_losses(fresh, config, lesson, bank)(number)["l1"]) for number in range(8))
    train_flow(fresh, config, lesson, teacher)
    assert {share.crop for share in asked} == {32}, "the bank was read back, crops are those of the second phase"
    with torch.no_grad():
        after = sum(float(flow_losses(fresh, config, lesson, bank)(number)["l1"]) for number in range(8))
    assert after < 0.95 * before


def test_a_phase_of_latents_needs_a_bank_as_large() -> None:
    phases = [{"share": 1.0, "batch": 1, "crop": 64, "judged": "latent"}]
    for values, said in (({}, "need a bank"), ({"bank": 4, "bank_crop": 48}, "no windows of bank_crop, 48")):
        with pytest.raises(ValueError, match=said):
            FlowConfig.model_validate({"steps": 1, "phases": phases, "lr": 1e-3, **values})


def test_a_picture_larger_than_the_model_is_judged_by_its_top_left() -> None:
    """A model that gives back what it gets is bicubic's equal, on that part alone."""

    class Same:
        facts = SimpleNamespace(window=32)

        def __call__(self, lq: Tensor) -> Tensor:
            assert lq.shape == (1, 3, 32, 32)
            return lq

    sharp = torch.randint(0, 256, (3, 48, 40), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    low = sharp.clone()
    low[:, 32:] = 0
    low[:, :, 32:] = 255
    low[:, :4] = 0
    model: Any = Same()
    quality, grid = restored(model, [Pair("x", sharp, low)])
    assert quality["x"]["psnr"] == quality["x"]["psnr_bicubic"] and grid.size == (96, 32)
    error = ((low[:, :32, :32].double() - sharp[:, :32, :32].double()) / 255).square().mean()
    assert quality["x"]["psnr_rgb"] == pytest.approx(float(-10 * torch.log10(error)), abs=1e-3)


def test_a_shift_moves_the_places(fresh: SD3DiT) -> None:
    places, like = fresh.transformer.pos_embed, torch.zeros(1)
    whole = places.places(12, 12, like).unflatten(1, (12, 12))
    places.shift = (2, -3)
    moved = places.places(6, 6, like).unflatten(1, (6, 6))
    assert torch.equal(moved, whole[:, 5:11, 0:6])
