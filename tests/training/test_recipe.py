"""The recipe of the sample backbone: its start, its losses, its data, and its commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from qartsr.config.data import RealESRGANConfig
from qartsr.config.load import load_config
from qartsr.config.recipe import AutoencoderConfig, RecipeConfig, SchoolingConfig
from qartsr.data import Pair
from qartsr.models import OneStepSR
from qartsr.models.sd_unet import SDUNet, sample_backbone
from qartsr.training.autoencoder import Lesson, latents, train_autoencoder, train_prior
from qartsr.training.batches import Batches, cropped, mixed
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.distributed import Share
from qartsr.training.loop import Curves
from qartsr.training.transform_start import level, start_as_copy, start_as_transform, transform


@pytest.fixture()
def batches() -> Batches:
    """Crops of one smooth random picture."""
    small = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 255
    picture = F.interpolate(small, size=(96, 96), mode="bicubic").round().clamp(0, 255).to(torch.uint8)[0]
    return cropped([Pair("smooth", picture, picture)], 0, "test")


@pytest.fixture()
def fresh() -> OneStepSR:
    return sample_backbone(999, "none", seed=1).eval().requires_grad_(False)


def _lesson(title: str, batches: Batches, folder: Path) -> Lesson:
    return Lesson(title, batches, 0, Curves(lambda values, step: None), Checkpoint(folder, 60))


def test_the_transform_is_orthonormal_and_keeps_constants() -> None:
    rows = transform().flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(16), atol=1e-6)
    constant = torch.tensor([0.3, -0.2, 0.7]).view(3, 1, 1).expand(3, 4, 4).flatten()
    assert torch.allclose(rows.T @ (rows @ constant), constant, atol=1e-6)


def test_the_autoencoder_starts_as_the_transform(fresh: OneStepSR, batches: Batches) -> None:
    """The encoder is a strided convolution with the transform; the decoder gives block means back, colours right."""
    start_as_transform(fresh.vae)
    images = batches(Share(0, 4, 64, 0, 4))[0]
    exact = F.conv2d(images, transform(), stride=4)
    assert (fresh.encode(images) - exact).abs().max() < 0.05 * exact.abs().max()
    back = fresh.decode(fresh.encode(images))
    assert (F.avg_pool2d(back, 16) - F.avg_pool2d(images, 16)).abs().mean() < 0.1


def test_levelled_latents_have_one_size_and_decode_to_the_same(fresh: OneStepSR, batches: Batches) -> None:
    start_as_transform(fresh.vae)
    images = batches(Share(0, 4, 64, 0, 4))[0]
    before = fresh.decode(fresh.encode(images))
    level(fresh.vae, latents(fresh.vae, batches, 64))
    size = latents(fresh.vae, batches, 64).pow(8).mean((0, 2, 3)).pow(1 / 8)
    assert torch.allclose(size, torch.ones(16), atol=0.02)
    assert torch.allclose(fresh.decode(fresh.encode(images)), before, atol=1e-4)


def test_no_channel_between_the_layers_carries_all_the_light(fresh: OneStepSR) -> None:
    """A grey picture reaches every layer that reads the stream with channels of like size: a grid spans little."""
    start_as_transform(fresh.vae)
    seen: dict[str, torch.Tensor] = {}
    for name, module in fresh.vae.named_modules():
        if "samplers.0.conv" in name or "conv_shortcut" in name:
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: seen.update({name: inputs[0][0, :, 8:-8, 8:-8]})
            )
    fresh.vae.decode(fresh.vae.encode(torch.full((1, 3, 128, 128), 0.8)).latent_dist.mean)
    assert len(seen) == 8
    for name, value in seen.items():
        channels = value.mean((1, 2)).abs()
        assert channels.max() < 4 * channels.square().mean().sqrt(), name


@torch.no_grad()
@pytest.mark.parametrize("size", [0.3, 1.0, 3.0])
def test_the_one_step_model_starts_as_a_copy_of_whatever_size(fresh: OneStepSR, size: float) -> None:
    """Flat, smooth and rough latents: the prediction is within some percent of ``gain`` times the latent."""
    assert isinstance(fresh, SDUNet)
    start_as_copy(fresh.unet, 0.93, 999)
    dice = torch.Generator().manual_seed(3)
    for side in (1, 4, 24):
        coarse = torch.randn(2, 16, side, side, generator=dice) * size
        z_l = F.interpolate(coarse, size=(24, 24), mode="bilinear")
        error = (fresh.predict(z_l) - 0.93 * z_l).square().mean().sqrt()
        assert error < 0.03 * z_l.square().mean().sqrt(), side


def test_autoencoder_and_prior_learn(fresh: OneStepSR, batches: Batches, tmp_path: Path) -> None:
    phases = [{"share": 1.0, "batch": 2, "crop": 32}]
    school = {"steps": 12, "phases": phases, "lr": 1e-3, "warmup": 2}
    first = _lesson("autoencoder", batches, tmp_path / "a")
    train_autoencoder(fresh.vae, AutoencoderConfig.model_validate(school), first)
    l1 = [float(row["l1"]) for row in first.curves.rows]
    assert min(l1[-3:]) < l1[0]
    second = _lesson("prior", batches, tmp_path / "p")
    train_prior(fresh, SchoolingConfig.model_validate({**school, "steps": 40, "lr": 2e-3}), second)
    loss = [float(row["total"]) for row in second.curves.rows]
    assert loss[0] == pytest.approx(1, abs=0.1)  # a noise of zero is off by the noise, whose variance is one
    assert sum(loss[-4:]) / 4 < 0.9
    assert not any(parameter.requires_grad for parameter in fresh.parameters())


def test_a_share_of_the_crops_is_degraded_anew(batches: Batches) -> None:
    small = torch.randint(0, 255, (3, 96, 96), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    pairs = [Pair("noise", small, small)]
    share = Share(3, 4, 32, 0, 4)
    hr, lq = cropped(pairs, 0, "m")(share)
    for wanted in (0.0, 1.0):
        sharp, low = mixed(pairs, RealESRGANConfig(), wanted, 0, "m")(share)
        assert torch.equal(sharp, hr)
        assert torch.equal(low, lq) == (wanted == 0)
        assert torch.equal(mixed(pairs, RealESRGANConfig(), wanted, 0, "m")(share)[1], low)


def test_the_recipe_is_valid_and_its_commands_fit_its_stages(root: Path) -> None:
    folder = root / "weights" / "recipe"
    config = load_config(RecipeConfig, folder / "params.yaml")
    assert config.one_step.timestep == 999
    graph = yaml.safe_load((folder / "dvc.yaml").read_text())
    for name, stage in graph["stages"].items():
        text = (root / "stages" / "recipe" / f"{name}.py").read_text()
        taken = set(re.findall(r'"(--[a-z]+)"', text)) | {"--params"}
        command = stage["cmd"].replace("${here}", next(entry["here"] for entry in graph["vars"] if "here" in entry))
        given = set(re.findall(r"(--[a-z]+) ", command + " "))
        assert given - {"--params"} == taken - {"--params"}, name
        for dep in stage["deps"]:
            assert dep.startswith(("build/", "../../build/")) or (folder / dep).exists(), dep
