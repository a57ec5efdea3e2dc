"""TRQ on a little Stable Diffusion: begun anew, regularised, merged, kept, recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qartsr.config.data import DataConfig, PhotographsConfig, RealESRGANConfig
from qartsr.config.retrain import AdaptersConfig, ProbeConfig, RetrainConfig, VSDConfig
from qartsr.config.training import ImageLossConfig, LPIPSConfig
from qartsr.data import write_dataset
from qartsr.errors import QartsrError
from qartsr.models import OneStepSR, load_model, save_model
from qartsr.models.adapters import Adapters, attach, fold
from qartsr.models.sd_unet.osediff import load_osediff
from qartsr.models.sd_unet.pretrained import load_unet, load_vae
from qartsr.training.batches import source
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.distributed import MicroBatching, World
from qartsr.training.loop import Curves
from qartsr.training.optimizer import Setting
from qartsr.training.probe import probed
from qartsr.training.trq import Job, inputs, retrained, save_retrained
from tests.models.little import checkpoint, write_base

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs") / "data"
    write_dataset(DataConfig(images=PhotographsConfig(train=("camera", "coins"), test=("chelsea",))), 0, folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def config(base: Path) -> RetrainConfig:
    """OSEDiff's training, small: adapters, VSD, Real-ESRGAN, gradients accumulated, bf16 off."""
    return RetrainConfig(
        timestep=1, start="base", base=str(base), train="lora",
        adapters=AdaptersConfig(rank=4), degradation=RealESRGANConfig(), steps=2, batch=2, crop=64, lr=1e-3,
        schedule="constant", warmup=1, betas=(0.9, 0.999), weight_decay=1e-2, clamp=True,
        loss=ImageLossConfig(lpips=0.0, mse=1.0), vsd=VSDConfig(weight=1.0, negative_prompt="blurring, dirty"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def backbone(base: Path, tmp_path_factory: pytest.TempPathFactory) -> OneStepSR:
    path = tmp_path_factory.mktemp("lora") / "osediff.pkl"
    torch.save(checkpoint(base), path)
    return load_osediff(base, path, "adain")


def job(backbone: OneStepSR, data: Path, config: RetrainConfig, work: Path) -> Job:
    setting = Setting(LPIPSConfig(), "none", 1.0, 0)
    batches = source(data, config.degradation, 0, 0)
    return Job(backbone, batches, config, setting, MicroBatching(World(CPU), 1, True), Checkpoint(work, 60.0))


def test_osediffs_training_at_t_1(backbone: OneStepSR, data: Path, config: RetrainConfig, tmp_path: Path) -> None:
    work, curves = job(backbone, data, config, tmp_path / "work"), Curves(lambda values, step: None)
    last = retrained(work, 1, 2, curves)
    save_retrained(work, last, tmp_path / "out")
    first, asked = probed(work, ProbeConfig(timesteps=(999, 1), steps=1), tmp_path / "out")
    assert (first.timestep, asked.timestep) == (999, 1)
    untouched, trained = first.state_dict(), asked.state_dict()
    assert all(torch.equal(trained[name], value) for name, value in last.state_dict().items())
    for name, value in backbone.state_dict().items():
        assert torch.equal(untouched[name], value), "999 is the backbone's own timestep: as it is"
    assert [set(row) for row in curves.rows] == [{"step", "mse", "total", "vsd", "diffusion"}] * 2
    saved = load_model(tmp_path / "out").state_dict()
    assert all(torch.equal(saved[name], value) for name, value in last.state_dict().items())
    recalled = Curves(lambda values, step: None)
    again = retrained(work, 1, 2, recalled)
    assert torch.equal(again.unet.conv_in.weight, last.unet.conv_in.weight), "kept, not trained again"
    assert [list(row.items()) for row in recalled.rows] == [list(row.items()) for row in curves.rows], "with its curves"


def test_what_is_recorded_is_what_was_trained(
    backbone: OneStepSR, base: Path, data: Path, config: RetrainConfig, tmp_path: Path
) -> None:
    """Stable Diffusion with the recorded adapters merged is the retrained model; the decoder is untouched."""
    work = job(backbone, data, config, tmp_path / "work")
    model = retrained(work, 1, 1, Curves(lambda values, step: None))
    save_retrained(work, model, tmp_path / "out")
    stored = load_file(tmp_path / "out" / "adapters.safetensors")
    for part, module in (("unet", load_unet(base)), ("vae", load_vae(base))):
        own = {name.removeprefix(f"{part}."): value for name, value in stored.items() if name.startswith(part)}
        attach(module, Adapters(4, own, "adapters"))
        fold(module)
        changed = getattr(model, part).state_dict()
        assert all(torch.allclose(value, changed[name], atol=1e-6) for name, value in module.state_dict().items())
    assert not any(name.startswith("vae.decoder") for name in stored)


def test_without_vsd_and_base_nothing_of_stable_diffusion_is_needed(
    backbone: OneStepSR, data: Path, config: RetrainConfig, tmp_path: Path
) -> None:
    """``base`` names nothing that exists, and is never opened."""
    changes = {"start": "backbone", "vsd": VSDConfig(), "base": str(tmp_path / "none"), "train": "all"}
    plain = config.model_copy(update=changes)
    assert inputs(plain) == []
    work = job(backbone, data, plain, tmp_path / "work")
    model = retrained(work, 1, 1, Curves(lambda values, step: None))
    assert not torch.equal(model.vae.decoder.conv_in.weight, backbone.vae.decoder.conv_in.weight)
    save_retrained(work, model, tmp_path / "out")
    assert not (tmp_path / "out" / "adapters.safetensors").exists()
    assert [path.name for path in inputs(config)] == ["unet", "vae", "tokenizer", "text_encoder"]


def test_a_model_folder_of_ours_teaches_with_the_prompt_it_knows(
    backbone: OneStepSR, data: Path, config: RetrainConfig, tmp_path: Path
) -> None:
    """Such as the sample's prior: no text encoder, one embedding."""
    save_model(backbone, tmp_path / "prior")
    vsd = VSDConfig(weight=1.0, guidance=1.0)
    taught = config.model_copy(update={"start": "backbone", "base": str(tmp_path / "prior"), "vsd": vsd})
    assert [path.name for path in inputs(taught)] == ["unet", "vae", "context.safetensors"]
    curves = Curves(lambda values, step: None)
    retrained(job(backbone, data, taught, tmp_path / "work"), 1, 1, curves)
    assert set(curves.rows[0]) == {"step", "mse", "total", "vsd", "diffusion"}
    blind = taught.model_copy(update={"vsd": VSDConfig(weight=1.0, negative_prompt="blurring")})
    with pytest.raises(QartsrError, match="has no text encoder, so no prompt can be given"):
        retrained(job(backbone, data, blind, tmp_path / "other"), 1, 1, curves)


def test_a_missing_base_is_named(backbone: OneStepSR, data: Path, config: RetrainConfig, tmp_path: Path) -> None:
    lost = config.model_copy(update={"base": str(tmp_path / "none")})
    with pytest.raises(QartsrError, match="name a Stable Diffusion folder"):
        retrained(job(backbone, data, lost, tmp_path / "work"), 1, 1, Curves(lambda values, step: None))
