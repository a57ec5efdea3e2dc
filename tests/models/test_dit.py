"""SD3's transformer as a backbone: diffusers' own forward, segment by segment, folded, stored, quantized and packed."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from qartsr.artifact.graphs import TENSOR, unpacked
from qartsr.artifact.header import read_head
from qartsr.config import Bits
from qartsr.config.parts import MethodConfig
from qartsr.engines import Integer
from qartsr.engines.integer import TokenLayer
from qartsr.engines.openvino import OpenVINO
from qartsr.errors import QartsrError
from qartsr.export import build_picture, serialized, skeleton
from qartsr.models import Backbone, State, constants, fold_constants, load_model, run_segments, save_model
from qartsr.models.sd3_dit import SD3DiT
from qartsr.models.sd3_dit.model import joined_prompt
from qartsr.models.sd3_dit.tsdsr import load_tsdsr
from qartsr.packing import PackedLayer, add_graphs, inspect, load_package, write_package
from qartsr.quantize import look, plan, quant_layers, quantize, round_for_storage
from qartsr.runtime.network import GraphNetwork
from qartsr.runtime.package import open_graphs
from qartsr.upscale import upscale_image

QDIT4SR: dict[str, Any] = {
    "weight": {"kind": "gaussian", "granularity": "channel"},
    "input": {"kind": "gaussian", "token": True},
    "transform": {"kind": "hadamard"},
    "skip": {"kind": "hsvd", "rank": 2, "basis": "rotated", "search": True},
}


def _transformer() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        pos_embed_max_size=24,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )


@functools.cache
def _parts() -> tuple[SD3Transformer2DModel, AutoencoderKL, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 8, 8),
        norm_num_groups=2,
        latent_channels=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    transformer = _transformer().eval()
    for parameter in transformer.parameters():  # modulations start at nothing
        nn.init.normal_(parameter, std=0.2)
    return transformer, vae.eval(), torch.randn(1, 3, 12), torch.randn(1, 10)


def little() -> SD3DiT:
    transformer, vae, tokens, pooled = _parts()
    made = _transformer()
    made.load_state_dict(transformer.state_dict())
    other = AutoencoderKL.from_config(vae.config)
    other.load_state_dict(vae.state_dict())
    return SD3DiT(made, other, joined_prompt(tokens, pooled), 1000, "adain").eval().requires_grad_(False)


def _image(side: int = 24) -> torch.Tensor:
    return torch.rand(2, 3, side, side + 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_it_is_tsdsrs_step_of_diffusers_own_forward() -> None:
    """Z_L - v, no shift factor, places cut from the middle of the stored table, whatever the size."""
    transformer, vae, tokens, pooled = _parts()
    model, lq = little(), _image()
    z_l = vae.encode(lq).latent_dist.mode() * vae.config.scaling_factor
    told = torch.full((2,), 1000)
    prompt = {"encoder_hidden_states": tokens.expand(2, -1, -1), "pooled_projections": pooled.expand(2, -1)}
    velocity = transformer(z_l, timestep=told, **prompt).sample
    torch.testing.assert_close(model.predict(z_l), velocity, atol=1e-5, rtol=1e-5)
    expected = vae.decode((z_l - velocity) / vae.config.scaling_factor).sample
    torch.testing.assert_close(model(lq), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(QartsrError, match="more than 24"):
        model.predict(torch.zeros(1, 4, 50, 4))
    assert not any("pos_embed.pos_embed" in name for name in model.state_dict())


@torch.no_grad()
def test_segments_are_the_forward_and_hold_every_layer_once() -> None:
    model, lq = little(), _image()
    assert torch.equal(run_segments(model, State(lq), model.segments()).hidden, model(lq))
    held = [name for segment in model.segments() for name in segment.layers]
    assert sorted(held) == sorted(n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear))
    upto = [s for s in model.segments() if s.place != "decoder"]
    assert torch.equal(run_segments(model, State(lq), upto).hidden, model.denoise(model.encode(lq)))


@torch.no_grad()
def test_folding_changes_nothing_and_leaves_the_modulations() -> None:
    model, lq = little(), _image()
    before, count = model(lq), sum(value.numel() for value in model.parameters())
    fold_constants(model)
    torch.testing.assert_close(model(lq), before, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(run_segments(model, State(lq), model.segments()).hidden, model(lq))
    assert "transformer.norm_out.linear" in constants(model) and model.context.shape == (1, 0, 16)
    assert sum(value.numel() for value in model.parameters()) < 0.8 * count


@torch.no_grad()
def test_stored_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    model, lq = little(), _image()
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert isinstance(loaded, SD3DiT) and loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    torch.testing.assert_close(loaded(lq), model(lq), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_qdit4sr_is_packed_without_loss(tmp_path: Path) -> None:
    method = MethodConfig(name="q", layer=QDIT4SR, bits_policy={"kind": "vasmp", "exact": True})  # type: ignore[arg-type]
    model, lq = little(), _image()
    decided = plan(model, method, Bits(4, 6))
    made = quantize(model, decided, look(model, decided, lq))
    assert len(quant_layers(made)) == len(decided.layers)
    fold_constants(made)
    round_for_storage(made)
    write_package(tmp_path / "p.safetensors", made, decided, {})
    loaded = load_package(tmp_path / "p.safetensors")
    assert torch.equal(loaded(lq), made(lq))
    exact, kinds = model(lq), inspect(tmp_path / "p.safetensors").kinds
    assert float((made(lq) - exact).square().mean()) < 0.25 * float(exact.var())
    assert kinds["folded constants"] > 0 and kinds["input grids"] == 0
    _runs_in_integers_layer_by_layer(loaded, lq)


def _runs_in_integers_layer_by_layer(packed: Backbone, lq: torch.Tensor) -> None:
    """Every linear layer on the very input it has."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    layers = {n: m for n, m in packed.named_modules() if isinstance(m, PackedLayer)}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, given, out, name=name: seen.update({name: (given[0], out)}))
    packed(lq)
    twins = {n: m for n, m in Integer().prepare(packed).named_modules() if isinstance(m, TokenLayer)}
    linear = [name for name, layer in layers.items() if len(layer.spec.shape) == 2]
    assert sorted(twins) == sorted(linear) and len(linear) > 30
    for name, twin in twins.items():
        given, out = seen[name]
        assert float((twin(given) - out).abs().max()) < 1e-4 * float(out.abs().max())


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A package with graphs at 8 bits: where a code is one further, for sums are made in another order, nobody sees."""
    method = MethodConfig(name="q", layer=QDIT4SR)  # type: ignore[arg-type]
    model, lq = little(), _image()
    decided = plan(model, method, Bits(7, 8))
    made = quantize(model, decided, look(model, decided, lq))
    fold_constants(made)
    round_for_storage(made)
    path = tmp_path_factory.mktemp("package") / "p.safetensors"
    write_package(path, made, decided, {})
    add_graphs(path, skeleton(load_package(path)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path.parent))
        yield path


@pytest.fixture(scope="module")
def network(eight: Path) -> GraphNetwork:
    graphs = open_graphs(eight)
    assert graphs is not None
    return GraphNetwork(graphs, 1)


@torch.no_grad()
def test_openvino_runs_its_products_on_codes(eight: Path, network: GraphNetwork) -> None:
    packed, lq = load_package(eight), _image()[:1]
    assert OpenVINO().refusal(packed, torch.device("cpu")) is None
    expected, found = packed(lq)[0], torch.from_numpy(network(lq[0].numpy()))
    assert float((found - expected).square().mean().sqrt()) < 0.05 * float(expected.std())
    codes = [node for node in _kept(eight).graph.node if node.op_type == "QuantizeLinear"]
    layers = [each for name, each in packed.named_modules() if isinstance(each, PackedLayer) and "vae" not in name]
    assert len(codes) == len(layers) > 30


def test_what_is_in_the_package_is_not_in_its_graphs_again(eight: Path) -> None:
    """Codes, factors, modulations and places are computed from its tensors; Hadamard's matrices are left."""
    assert sum(len(each.raw_data) for each in _kept(eight).graph.initializer if len(each.raw_data) > 64) < 2048


def test_modulations_are_parts_of_constants(eight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the little model are as small as what may stay in a graph."""
    module = importlib.import_module("qartsr.export.skeleton")
    monkeypatch.setattr(module, "_SMALL", 32)
    model, name = load_package(eight), "transformer.transformer_blocks.1.norm1.linear.value"
    find, shift = module._Finder(model), np.split(model.state_dict()[name].numpy(), 6, -1)[2]
    assert find("constant_1", shift) == f"tensor {name}|part 2 6"
    assert find("constant_2", shift + np.float32(1)) == f"tensor {name}|part 2 6|more"


def _kept(path: Path) -> Any:
    """The denoiser's graph as it is stored, without the constants that its recipes name."""
    import onnx

    head = read_head(path)
    begin, end = head.table[TENSOR].data_offsets
    facts, pieces = unpacked(path.read_bytes()[head.size + begin : head.size + end])
    return onnx.load_from_string(b"".join(pieces[place] for place in facts.graphs["denoiser"]["plain"].pieces))


def test_pictures_of_odd_sides_are_restored_alike(eight: Path, network: GraphNetwork) -> None:
    """Patches are 8 pixels wide: 4 times an odd side is no multiple of that. By modules, without torch, one graph."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8))
    model = load_package(eight)
    restored = [np.asarray(upscale_image(some, picture), np.float64) for some in (model, network)]
    whole = serialized(build_picture(model, None, {}))
    session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
    image = np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255
    restored.append(session.run(None, {"image": image})[0][0].transpose(1, 2, 0) * 255.0)
    for other in restored[1:]:
        assert other.shape == restored[0].shape == (20, 28, 3)
        assert np.sqrt(np.square(other - restored[0]).mean()) < 0.1 * restored[0].std()


@torch.no_grad()
def test_a_picture_larger_than_its_places_is_refused(eight: Path, network: GraphNetwork) -> None:
    model = load_package(eight)
    assert network.load == model.facts.load and network.load.window == 64
    sentence = "than the 192 along a side of this model; take tiles of at most 192"
    large = np.zeros((3, 200, 24), np.float32)
    with pytest.raises(QartsrError, match=sentence):
        network(large)
    for each in (OpenVINO().prepare(model), model):
        with pytest.raises(QartsrError, match=sentence):
            each(torch.from_numpy(large)[None])
    for some in (network, model):
        with pytest.raises(QartsrError, match=sentence):
            upscale_image(some, Image.new("RGB", (6, 50)), tile=2048)
    with pytest.raises(QartsrError, match=sentence):
        build_picture(model, (50, 6), {})


def test_places_are_diffusers_own() -> None:
    """Its whole table, 192 x 192 in SD3, from the middle."""
    whole = SD3Transformer2DModel.from_config(_parts()[0].config).pos_embed.pos_embed
    side, width = 24, whole.shape[-1]
    table = whole.reshape(side, side, width)[6:18, 5:18].flatten(0, 1)
    made = little().transformer.pos_embed.places(12, 13, torch.zeros(1))[0]
    assert float((made - table).abs().max()) < 1e-6


def _published(folder: Path) -> tuple[Path, Path, Path]:
    """A little model in TSD-SR's layout: base, LoRA, prompt."""
    transformer, vae, tokens, pooled = _parts()
    base, lora, prompt = (folder / name for name in ("base", "lora", "prompt"))
    transformer.save_pretrained(base / "transformer")
    vae.save_pretrained(base / "vae")
    ends = ("to_k", "to_q", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "proj", "linear", "proj_out")
    layers = [n for n, m in transformer.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    lora.mkdir()
    prompt.mkdir()
    for part, name, chosen in (
        (transformer, "transformer", [n for n in layers if n.endswith(tuple(f".{end}" for end in ends)) or n in ends]),
        (
            vae,
            "vae",
            [n for n, m in vae.encoder.named_modules(prefix="encoder") if isinstance(m, nn.Conv2d | nn.Linear)],
        ),
    ):
        state = {}
        for layer in chosen:
            weight = part.get_submodule(layer).get_parameter("weight")
            state[f"transformer.{layer}.lora_A.weight"] = torch.randn(3, *weight.shape[1:]) * 0.1
            state[f"transformer.{layer}.lora_B.weight"] = (
                torch.randn(weight.shape[0], 3, *(1,) * (weight.ndim - 2)) * 0.1
            )
        save_file(state, lora / f"{name}.safetensors")
    torch.save(tokens, prompt / "prompt_embeds.pt")
    torch.save(pooled, prompt / "pool_embeds.pt")
    return base, lora, prompt


@torch.no_grad()
def test_tsdsrs_published_files_become_the_model(tmp_path: Path) -> None:
    """W + B A in every adapted layer, all others as they were; a key too many, too few or not finite is named."""
    base, lora, prompt = _published(tmp_path)
    model, before = load_tsdsr(base, lora, prompt), _parts()[0]
    stored = load_file(lora / "transformer.safetensors")
    for name, module in before.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        a, b = (stored.get(f"transformer.{name}.lora_{side}.weight") for side in "AB")
        delta = 0 if a is None or b is None else (b.flatten(1) @ a.flatten(1)).reshape(module.weight.shape)
        torch.testing.assert_close(model.transformer.get_submodule(name).weight, module.weight + delta)
    assert model.timestep == 1000 and model.prompt(2)[1].shape == (2, 10) and model(_image()).isfinite().all()
    key = "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"
    changes: dict[str, dict[str, torch.Tensor | None]] = {
        f"lacks the key '{key}'": {key: None},
        "unknown key 'more'": {"more": torch.zeros(1)},
        "has the key 'transformer.transformer_blocks.0.ff.net.2.lora_A.weight'": {
            "transformer.transformer_blocks.0.ff.net.2.lora_A.weight": torch.zeros(3, 64)
        },
        "no finite numbers": {key: torch.full((3, 16), torch.nan)},
        "2 ranks": {key: torch.zeros(4, 16)},
    }
    for said, change in changes.items():
        changed = {name: value for name, value in {**stored, **change}.items() if value is not None}
        save_file(changed, lora / "transformer.safetensors")
        with pytest.raises(QartsrError, match=said):
            load_tsdsr(base, lora, prompt)
    save_file(stored, lora / "transformer.safetensors")
    torch.save({"not": "a tensor"}, prompt / "pool_embeds.pt")
    with pytest.raises(QartsrError, match="no embedding of one prompt with 10 features"):
        load_tsdsr(base, lora, prompt)
