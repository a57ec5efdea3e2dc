"""What never sees the image is folded, nothing else, and the model computes what it computed before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qartsr.layer import QuantLayer
from qartsr.models import OneStepSR, constants, fold_constants, is_folded
from qartsr.synthetic import ARCHITECTURES, blank
from tests.packing.tiny import network_input, quantized, recipe, tiny_model


@pytest.fixture(params=["float", "w4a4"])
def model(request: pytest.FixtureRequest) -> OneStepSR:
    made = tiny_model()
    if request.param == "w4a4":
        quantized(made, "w4a4", recipe())
    return made


def _layers(model: OneStepSR) -> dict[str, nn.Module]:
    kinds = (nn.Linear, nn.Conv2d, QuantLayer)
    return {name: module for name, module in model.unet.named_modules(prefix="unet") if isinstance(module, kinds)}


def test_exactly_the_layers_that_never_see_the_image_are_folded() -> None:
    """Independent truth: what a layer gives for two latents that have nothing in common."""
    model, seen = tiny_model(), dict[str, list[torch.Tensor]]()
    layers = _layers(model)
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, __, output, name=name: seen.setdefault(name, []).append(output))
    with torch.no_grad():
        for seed in (1, 2):
            model.predict(10 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)))
    same = {name for name, (first, second) in seen.items() if torch.equal(first, second)}
    folded = model.constant_shapes(3)
    assert seen.keys() == layers.keys()
    assert same == {name for name in layers if is_folded(name, folded)} != set()


def test_the_folded_model_computes_the_same(model: OneStepSR) -> None:
    lq = torch.cat([network_input(seed) for seed in (1, 2, 3)])
    with torch.no_grad():
        one, three = model(lq[:1]), model(lq)
        layers = len(_layers(model))
        fold_constants(model)
        assert torch.equal(model(lq[:1]), one)
        assert torch.allclose(model(lq), three, atol=1e-4)
    assert model.context.shape == (1, 0, 6)
    assert {name: tuple(part.value.shape) for name, part in constants(model).items()} == model.constant_shapes(3)
    assert len(_layers(model)) < layers
    before = dict(model.state_dict())
    fold_constants(model)
    assert model.state_dict().keys() == before.keys()


def test_a_constant_is_a_row_of_the_batch_without_a_copy(model: OneStepSR) -> None:
    fold_constants(model)
    part = next(part for name, part in constants(model).items() if name.endswith("to_k"))
    given = part(torch.zeros(5, 0, 6))
    assert given.shape == (5, 3, part.value.shape[-1]) and given.data_ptr() == part.value.data_ptr()


def test_a_unet_that_mixes_otherwise_is_left_alone(model: OneStepSR) -> None:
    model.unet.register_to_config(resnet_time_scale_shift="scale_shift")
    keys = model.state_dict().keys()
    fold_constants(model)
    assert model.constant_shapes(3) == {} and model.state_dict().keys() == keys


def test_stable_diffusion_loses_53_million_parameters() -> None:
    """Independent count: cross-attention reads 1024 features, the time projections 1280."""
    unfolded = blank(ARCHITECTURES["osediff"]())
    folded = unfolded.constant_shapes(77)
    values = {key: sum(1 for name in folded if name.endswith(key)) for key in ("to_k", "to_v", "time_emb_proj")}
    assert values == {"to_k": 16, "to_v": 16, "time_emb_proj": 22}
    attention = sum(shape[-1] for name, shape in folded.items() if name.endswith("to_k"))
    time = sum(shape[-1] for name, shape in folded.items() if name.endswith("time_emb_proj"))
    gone = sum(p.numel() for name, p in unfolded.named_parameters() if is_folded(name.rpartition(".")[0], folded))
    assert gone == 2 * attention * 1024 + time * 1281 + 320 * 1280 + 1280 + 1280 * 1280 + 1280
    assert 53.3e6 < gone < 53.6e6
    assert sum(77 * shape[-1] for shape in folded.values() if len(shape) == 3) == 154 * attention
