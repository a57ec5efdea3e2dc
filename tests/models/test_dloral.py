"""DLoRAL: numbers by hand, flow and retrieval in closed forms, and its checkpoint key by key."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from qartsr.config import parse_bits
from qartsr.cost.report import cost_of
from qartsr.cost.subject import subject
from qartsr.engines import choose
from qartsr.errors import QartsrError
from qartsr.models import State, fold_constants, load_model, run_segments, save_model
from qartsr.models.sd_unet.dloral import PUBLISHED, CrossFrame, DLoRAL, warp
from qartsr.models.sd_unet.dloral_checkpoint import load_dloral, load_frames, load_unet, read_checkpoint
from qartsr.models.sd_unet.video import widened
from qartsr.packing import load_package, write_package
from qartsr.upscale.memory import LatentMemory
from qartsr.upscale.modules import ModuleNetwork
from qartsr.upscale.places import Place
from tests.packing.tiny import quantize, recipe, tiny_model

SMALL: dict[str, Any] = {"latents": 4, "heads": 2, "width": 3, "widths": (4, 4, 4, 4), "factor": 2}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def twice(unet: Any) -> Any:
    """The latents of two frames, each with the weights of one."""
    return widened(unet, unet.conv_in.weight.repeat(1, 2, 1, 1))


def little() -> DLoRAL:
    """The structure on the smallest model, its memory strong enough to be seen."""
    image = tiny_model()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        frames = CrossFrame.from_config(SMALL)
    for parameter in frames.retrieval.out.parameters():
        parameter.data *= 300
    model = DLoRAL(twice(image.unet), image.vae, frames, image.context.clone(), 1, "wavelet")
    return model.eval().requires_grad_(False)


def test_full_size_is_counted_by_hand() -> None:
    cost = cost_of(subject("dloral"), 512, [parse_bits("w4a4")], 4)
    parts = {component.name: component for component in cost.components}
    levels = sum(a * b * 49 + b for a, b in ((8, 32), (32, 64), (64, 32), (32, 16), (16, 2)))
    retrieval = 3 * (4 * 576 + 576) + (576 * 4 + 4) + (64 + 1)
    assert parts["flow and retrieval"].params == 6 * levels + retrieval == 1_451_313
    assert parts["UNet"].params == 865_910_724 + 4 * 9 * 320
    pixels = sum((64 >> level) ** 2 for level in range(6))
    flow = pixels * (levels - 32 - 64 - 32 - 16 - 2)
    products, points = 2 * 9 * 4096**2 * 64, 4096 * (4 * 4 * 576 + 9 * 64)
    assert parts["flow and retrieval"].macs == flow + products + points
    assert cost.rows[1].params_m < 0.14 * cost.rows[0].params_m
    assert cost.rows[1].lines[0].name == "UNet and VAE at w4a4"  # flow and retrieval stay in floating point


def test_a_flow_moves_and_shows_nothing_beyond_the_edge() -> None:
    image = drawn(1, 2, 3, 5)
    moved = warp(image, torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 3, 5))
    assert torch.allclose(moved[..., :-1], image[..., 1:], atol=1e-6) and not moved[..., -1].any()
    half = warp(image, torch.tensor([0.0, 0.5]).view(1, 2, 1, 1).expand(1, 2, 3, 5))
    assert torch.allclose(half[:, :, 0], (image[:, :, 0] + image[:, :, 1]) / 2, atol=1e-6)


def test_every_level_adds_to_twice_the_flow_below() -> None:
    """With a constant b from each of six levels the flow is b (1 + 2 + ... + 32); sides 33 are worked on as 64."""
    spynet = CrossFrame.from_config(SMALL).spynet
    for parameter in spynet.parameters():
        parameter.data.zero_()
    for level in spynet.levels:
        assert isinstance(level, nn.Sequential)
        level[-1].get_parameter("bias").data.copy_(torch.tensor([0.5, -1.0]))
    flow = spynet(drawn(1, 3, 32, 33), drawn(1, 3, 32, 33, seed=1))
    assert flow.shape == (1, 2, 32, 33)
    assert torch.allclose(flow[:, 0], torch.full((1, 32, 33), 0.5 * 63 * 33 / 64), atol=1e-4)
    assert torch.allclose(flow[:, 1], torch.full((1, 32, 33), -63.0), atol=1e-4)


def test_retrieval_is_its_formula_in_float64() -> None:
    frames = CrossFrame.from_config(SMALL)
    now, warped, part = drawn(1, 4, 3, 5), drawn(1, 4, 3, 5, seed=1), frames.retrieval
    state = {name: value.double() for name, value in part.state_dict().items()}

    def points(name: str, x: Tensor) -> Tensor:
        made = state[f"{name}.weight"][:, :, 0, 0] @ x.double()[0].flatten(1) + state[f"{name}.bias"][:, None]
        return made.reshape(2, 3, 15)

    query, key, value = points("query", now), points("key", warped), points("value", warped)
    found = torch.zeros(2, 3, 15, dtype=torch.float64)
    for head in range(2):
        for place in range(15):
            threshold = state["threshold.weight"][0] @ query[head, :, place] + state["threshold.bias"][0]
            for other in range(15):
                score = query[head, :, place] @ key[head, :, other] / math.sqrt(3)
                found[head, :, place] += max(float(score - threshold), 0.0) / 3000 * value[head, :, other]
    expected = state["out.weight"][:, :, 0, 0] @ found.reshape(6, 15) + state["out.bias"][:, None]
    assert torch.allclose(part(now, warped).double(), expected.view(1, 4, 3, 5), atol=1e-6)


def test_frames_are_reduced_without_a_filter() -> None:
    """A pixel lies amid eight, where bicubic weighs the four nearest by -3/32, 19/32, 19/32, -3/32."""
    row = drawn(1, 3, 1, 24).expand(1, 3, 24, 24)
    small = CrossFrame.from_config({**SMALL, "factor": 8}).reduced(row)
    taps = torch.tensor([-3, 19, 19, -3]) / 32
    expected = torch.stack([(row[0, :, 0, 8 * n + 2 : 8 * n + 6] * taps).sum(1) for n in range(3)], 1)
    assert torch.allclose(small[0, :, 1], expected, atol=1e-6)


def test_the_denoiser_sees_the_warped_and_the_refined_latent() -> None:
    model, lq = little(), drawn(2, 6, 16, 24)
    z = [model.facts.scaling * model.posterior(frame)[0] for frame in (lq[:, :3], lq[:, 3:])]
    small = [model.frames.reduced(frame) for frame in (lq[:, :3], lq[:, 3:])]
    warped = warp(z[0], model.frames.spynet(small[1], small[0]))
    refined = z[1] + model.frames.retrieval(z[1], warped)
    seen = torch.cat([warped, refined], 1)
    assert torch.allclose(model.encode(lq), seen, atol=1e-5) and (refined - z[1]).abs().max() > 1e-3
    assert torch.allclose(model(lq), model.decode(refined - model.predict(seen)), atol=1e-4)
    assert torch.allclose(model(lq[:, 3:]), model(lq[:, 3:].repeat(1, 2, 1, 1)), atol=1e-5)


@pytest.mark.parametrize("channels", [3, 6])
def test_segments_are_the_model_and_hold_every_layer_once(channels: int) -> None:
    model, lq = little(), drawn(2, channels, 16, 24)
    state = run_segments(model, State(lq), model.segments())
    assert torch.allclose(state.hidden, model(lq), atol=1e-5)
    layers = [layer for segment in model.segments() for layer in segment.layers]
    assert sorted(layers) == sorted(
        name for name, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)
    )


@pytest.mark.long
def test_folder_package_engines_and_memory_keep_it(tmp_path: Path) -> None:
    model, lq = little(), drawn(1, 6, 16, 24)
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert isinstance(again, DLoRAL) and torch.allclose(again(lq), model(lq), atol=1e-5)
    fold_constants(again)
    plan = quantize(again, "w8a8", recipe(), float_layers=("frames.*",))
    write_package(tmp_path / "p.safetensors", again, plan, {"profile": "test", "data": {"sha256": "ab"}})
    packed = load_package(tmp_path / "p.safetensors")
    expected = packed(lq)
    assert torch.allclose(expected, again(lq), atol=1e-3)
    place, memory = Place(0, 0, torch.ones(16).numpy(), torch.ones(24).numpy()), LatentMemory()
    run = ModuleNetwork(packed).runner((16, 24), None, memory)
    run(lq[0, :3].numpy(), place)
    memory.advance()
    assert torch.allclose(torch.from_numpy(run(lq[0, 3:].numpy(), place)), expected[0], atol=1e-4)
    if find_spec("openvino") is None:
        pytest.skip("the engine openvino is an extra")
    fast = choose("openvino", packed, torch.device("cpu")).engine.prepare(packed)
    assert isinstance(fast, nn.Module) and (fast(lq) - expected).abs().max() < 0.1 * expected.abs().max()


def published(unet: UNet2DConditionModel, frames: CrossFrame) -> dict[str, Any]:
    """A checkpoint as the official code saves it, with names written down from that code."""
    adapted = {"encoder": ["conv_in", "down_blocks.0.resnets.0.conv1"], "others": ["mid_block.attentions.0.proj_in"],
               "decoder": ["up_blocks.0.resnets.0.conv1"]}  # fmt: skip
    inside = {name for names in adapted.values() for name in names}
    state = {}
    for key, value in unet.state_dict().items():
        module, _, name = key.rpartition(".")
        state[f"{module}.base_layer.{name}" if module in inside else key] = value
    content: dict[str, Any] = {}
    for stage, rank in (("quality", 4), ("consistency", 2)):
        content[f"lora_rank_unet_{stage}"] = rank
        for place, names in adapted.items():
            content[f"unet_lora_{place}_modules_{stage}"] = names
            for seed, name in enumerate(names):
                weight = unet.get_submodule(name).get_parameter("weight")
                down = drawn(rank, *weight.shape[1:], seed=seed + rank)
                up = drawn(len(weight), rank, *(1 for _ in weight.shape[2:]), seed=seed + 9)
                state |= {f"{name}.lora_{side}.default_{place}_{stage}.weight": value
                          for side, value in (("A", down), ("B", up))}  # fmt: skip
    beside = {"spynet.mean": torch.zeros(1, 3, 1, 1), "spynet.std": torch.ones(1, 3, 1, 1),
              "feat_extract.main.0.weight": torch.zeros(64, 4, 3, 3), "conv_last.bias": torch.zeros(4)}  # fmt: skip
    for level in range(6):
        for layer in range(5):
            for name in ("weight", "bias"):
                own = frames.spynet.get_parameter(f"levels.{level}.{2 * layer}.{name}")
                beside[f"spynet.basic_module.{level}.basic_module.{layer}.conv.{name}"] = own.data
    theirs_to_ours = {"query_conv": "query", "key_conv": "key", "value_conv": "value", "proj_out": "out",
             "threshold_fc": "threshold"}  # fmt: skip
    for theirs, ours in theirs_to_ours.items():
        for name in ("weight", "bias"):
            own = frames.retrieval.get_parameter(f"{ours}.{name}")
            beside[f"cross_attn_module.{theirs}.{name}"] = own.data
    return {**content, "state_dict_unet": state, "state_dict_bpp": beside}


def test_the_published_layout_is_read_and_both_loras_are_merged(tmp_path: Path) -> None:
    model, target = little(), little()
    content = published(model.unet, model.frames)
    torch.save(content, tmp_path / "model.pkl")
    read = read_checkpoint(tmp_path / "model.pkl")
    for parameter in (*target.unet.parameters(), *target.frames.parameters()):
        parameter.data.zero_()
    load_unet(target.unet, read, "model.pkl")
    load_frames(target.frames, read["state_dict_bpp"], "model.pkl")
    for name, value in model.frames.state_dict().items():
        assert torch.equal(target.frames.state_dict()[name], value)
    state = content["state_dict_unet"]
    for name, place in (("conv_in", "encoder"), ("mid_block.attentions.0.proj_in", "others")):
        expected = model.unet.get_submodule(name).get_parameter("weight").clone()
        for stage, rank in (("quality", 4), ("consistency", 2)):
            down, up = (state[f"{name}.lora_{side}.default_{place}_{stage}.weight"].flatten(1) for side in "AB")
            expected += (8 / rank * up @ down).view(expected.shape)
        assert torch.allclose(target.unet.get_submodule(name).get_parameter("weight"), expected, atol=1e-5)
    assert torch.equal(target.unet.conv_out.weight, model.unet.conv_out.weight)


@pytest.mark.parametrize(
    ("part", "key", "said"),
    [
        ("state_dict_unet", "conv_in.lora_A.default_encoder_quality.weight", "lacks the key"),
        ("state_dict_unet", "conv_in.base_layer.bias", "lacks the key 'conv_in.bias'"),
        ("state_dict_bpp", "cross_attn_module.threshold_fc.bias", "lacks the key"),
        ("state_dict_unet", "+conv_in.weight", "unknown key 'conv_in.weight'"),
        ("state_dict_bpp", "+spynet.basic_module.6.basic_module.0.conv.bias", "unknown key"),
    ],
)
def test_what_is_missing_or_unknown_is_named(part: str, key: str, said: str) -> None:
    model = little()
    content = published(model.unet, model.frames)
    if key.startswith("+"):
        content[part][key[1:]] = torch.zeros(1)
    else:
        del content[part][key]
    with pytest.raises(QartsrError, match=said):
        load_unet(model.unet, content, "model.pkl")
        load_frames(model.frames, content["state_dict_bpp"], "model.pkl")


def test_a_base_and_the_checkpoint_become_a_model(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {**SMALL, "factor": 4}
    monkeypatch.setattr("qartsr.models.sd_unet.dloral_checkpoint.PUBLISHED", sizes)
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    torch.save(published(twice(unet), CrossFrame.from_config(sizes)), tmp_path / "model.pkl")
    model = load_dloral(base, tmp_path / "model.pkl", "adain")
    assert (model.facts.frames, model.timestep, model.align, model.step[1:]) == (2, 1, "adain", (1.0, -1.0))
    assert model(drawn(1, 6, 32, 32)).shape == (1, 3, 32, 32)


def test_the_published_sizes_take_the_published_shapes() -> None:
    frames = CrossFrame.from_config(PUBLISHED)
    assert frames.retrieval.query.weight.shape == (576, 4, 1, 1)
    assert frames.spynet.get_parameter("levels.0.0.weight").shape == (32, 8, 7, 7)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"nothing")
    with pytest.raises(QartsrError, match="not a usable checkpoint"):
        read_checkpoint(tmp_path / "model.pkl")
    torch.save({"lora_rank_unet_quality": 4}, tmp_path / "model.pkl")
    with pytest.raises(QartsrError, match="lacks lora_rank_unet_consistency"):
        read_checkpoint(tmp_path / "model.pkl")
