"""Adapters: where OSEDiff puts them, nothing at the start, in the weights at the end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from qartsr.config.retrain import AdaptersConfig
from qartsr.models.adapters import Adapted, Adapters, attach, fold
from qartsr.models.sd_unet.model import SDUNet, lora_targets
from qartsr.training.adapter_layers import adapt, adapt_model, save_adapters
from qartsr.training.determinism import generator
from tests.training.tiny import CROP, one_step

CONFIG = AdaptersConfig(rank=2, alpha=8.0)


def adapted() -> SDUNet:
    model = one_step()
    adapt_model(model, CONFIG, generator(0, "adapters"))
    return model


def shaken() -> SDUNet:
    """As if trained: every trained value moved."""
    model = adapted()
    noise = generator(0, "training")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
    return model


@pytest.fixture()
def lq() -> torch.Tensor:
    return torch.rand(1, 3, CROP, CROP, generator=generator(0, "lq")) * 2 - 1


def test_fresh_adapters_change_nothing(lq: torch.Tensor) -> None:
    with torch.no_grad():
        assert torch.equal(adapted()(lq), one_step()(lq))


def test_only_adapters_and_conv_in_train() -> None:
    model = adapted()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    layers = [name for name, module in model.named_modules() if isinstance(module, Adapted)]
    paths = {name for name in trained if ".lora_A." in name or ".lora_B." in name}
    assert {name.split(".lora_")[0] for name in paths} == set(layers) and len(paths) == 2 * len(layers)
    assert trained - paths == {"unet.conv_in.base_layer.weight", "unet.conv_in.base_layer.bias"}
    parts = {".".join(name.split(".")[:2]) for name in layers}
    assert {"vae.encoder", "vae.quant_conv", "unet.mid_block", "unet.conv_out"} <= parts
    assert not parts & {"vae.decoder", "vae.post_quant_conv", "unet.time_embedding"}
    assert not [name for name in layers if "time_emb" in name]


def test_layers_are_those_of_the_published_checkpoint(parity: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(parity / "sd21_tiny" / "unet", local_files_only=True)
    vae = AutoencoderKL.from_pretrained(parity / "sd21_tiny" / "vae", local_files_only=True)
    content = torch.load(parity / "osediff.pkl", weights_only=True)
    targets = SDUNet(unet, vae, torch.zeros(1, 77, 32), 1).lora_targets()
    for part in ("encoder", "decoder", "others"):
        listed = {
            name for name, adapter in targets.items() if name.startswith("unet.") and adapter == f"default_{part}"
        }
        assert listed == {f"unet.{name}" for name in content[f"unet_lora_{part}_modules"]}
    assert set(lora_targets(unet)) == {name.removeprefix("unet.") for name in targets if name.startswith("unet.")}
    assert {n for n in targets if n.startswith("vae.")} == {f"vae.{n}" for n in content["vae_lora_encoder_modules"]}


def test_as_many_parameters_as_osediff_trains() -> None:
    """Stable Diffusion 2.1's shapes, without values: 258 layers of the UNet, 32 of the VAE, 4.44 M numbers."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280, 1280),
            attention_head_dim=(5, 10, 20, 20),
            cross_attention_dim=1024,
            use_linear_projection=True,
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
        model = SDUNet(unet, vae, torch.zeros(1, 77, 1024), 1)
    targets = model.lora_targets()
    assert [sum(name.startswith(part) for name in targets) for part in ("unet.", "vae.")] == [258, 32]
    adapt_model(model, AdaptersConfig(), generator(0, "adapters"))
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    whole = sum(n for name, n in trained.items() if name.startswith("unet.conv_in.base_layer."))
    unet_adapters = sum(n for name, n in trained.items() if name.startswith("unet.")) - whole
    assert (unet_adapters, whole, sum(trained.values()) - unet_adapters - whole) == (4_055_712, 11_840, 369_356)


def test_a_matrix_starts_gaussian_and_depends_on_the_seed() -> None:
    """Standard deviation 1 / rank; the other half of a path starts at 0."""

    def fresh(seed: int) -> Adapted:
        layers = nn.Sequential(nn.Conv2d(64, 8, 3, padding=1))
        adapt(layers, {"0": "path"}, AdaptersConfig(rank=4, alpha=2.0), generator(seed, "start"))
        assert isinstance(layers[0], Adapted)
        return layers[0]

    first, again, other = (fresh(seed).lora_A["path"].weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.detach().std()) == pytest.approx(1 / 4, rel=0.05)
    assert not fresh(0).lora_B["path"].weight.any()
    assert fresh(0).scale == 0.5


def test_merged_model_computes_the_same_and_is_plain(lq: torch.Tensor) -> None:
    model = shaken()
    with torch.no_grad():
        before = model(lq)
        assert not torch.allclose(before, one_step()(lq), atol=1e-3)
        fold(model)
        assert torch.allclose(model(lq), before, atol=1e-4)
    assert model.state_dict().keys() == one_step().state_dict().keys()


def test_saved_adapters_are_read_by_the_loader_of_osediff(tmp_path: Path) -> None:
    """Attached to the start and folded, they give the very weights that training left."""
    model = shaken()
    save_adapters(model, CONFIG, tmp_path / "adapters.safetensors")
    fold(model)
    stored, start = load_file(tmp_path / "adapters.safetensors"), one_step()
    for part in ("unet", "vae"):
        keys = {name.removeprefix(f"{part}."): value for name, value in stored.items() if name.startswith(part)}
        attach(getattr(start, part), Adapters(2, keys, "file"))
    fold(start)
    before = start.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value), name
    with safe_open(tmp_path / "adapters.safetensors", "pt") as handle:
        assert handle.metadata() == {"adapters": '{"rank": 2, "alpha": 8.0}'}
