"""What is decided: every layer once, edges and exceptions by pattern, JSON there and back."""

from __future__ import annotations

import json

import pytest
from diffusers import UNet2DConditionModel
from torch import nn

from qartsr.config import Bits
from qartsr.errors import QartsrError
from qartsr.quantize import Plan, plan
from tests.quantize.small import method, small


def test_every_convolution_and_linear_layer_is_planned_in_order() -> None:
    model = small()
    found = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    decided = plan(model, method(), Bits(3, 5))
    assert [layer.name for layer in decided.layers] == found and len(found) > 60
    assert {(layer.weight_bits, layer.input_bits, layer.float) for layer in decided.layers} == {(3, 5, False)}
    assert decided.method == "test" and decided.bits == "w3a5"


def test_edges_and_float_layers() -> None:
    settings = method(edge_layers=("unet.conv_*", "vae.*.conv_out"), edge_bits=8, float_layers=("unet.conv_out",))
    layers = {layer.name: layer for layer in plan(small(), settings, Bits(2, 2)).layers}
    assert layers["unet.conv_in"].weight_bits == layers["vae.decoder.conv_out"].input_bits == 8
    assert layers["unet.conv_out"].float and not layers["unet.conv_in"].float
    assert layers["vae.decoder.conv_in"].weight_bits == 2


def test_headroom_is_the_edge_layers_alone() -> None:
    decided = plan(small(), method(edge_layers=("unet.conv_in",), edge_headroom=1.5), Bits(4, 4))
    assert {layer.name for layer in decided.layers if layer.recipe.headroom == 1.5} == {"unet.conv_in"}
    assert {layer.recipe.headroom for layer in decided.layers} == {1.0, 1.5}
    with pytest.raises(ValueError, match="edge_headroom"):
        method(layer={"headroom": 2.0})


@pytest.mark.parametrize("field", ["edge_layers", "float_layers"])
def test_a_pattern_without_a_layer_is_named(field: str) -> None:
    with pytest.raises(QartsrError, match=r"unet\.conv_inn") as caught:
        plan(small(), method(**{field: ("unet.conv_in", "unet.conv_inn")}), Bits(4, 4))
    assert field in caught.value.where


def test_json_round_trip() -> None:
    decided = plan(small(), method(edge_layers=("unet.conv_in",)), Bits(4, 4))
    assert Plan.model_validate(json.loads(json.dumps(decided.model_dump(mode="json")))) == decided
    assert Plan.model_validate_json(decided.model_dump_json()) == decided


def test_inputs_have_no_channels() -> None:
    with pytest.raises(QartsrError, match="granularity"):
        plan(small(), method(layer={"input": {"kind": "lbq", "granularity": "channel"}}), Bits(4, 4))


def test_grouped_convolutions_are_refused() -> None:
    model = small()
    assert isinstance(model.unet, UNet2DConditionModel)
    model.unet.conv_in = nn.Conv2d(4, 8, 3, groups=2)
    with pytest.raises(ValueError, match="grouped"):
        plan(model, method(), Bits(4, 4))


def test_halves_are_of_every_even_input_and_of_its_weight() -> None:
    layer = {"weight": {"kind": "minmax", "granularity": "channel"}, "input": {"kind": "dynamic"}}
    model = small()
    decided = {
        found.name: found.recipe for found in plan(model, method(layer=layer, split="halves"), Bits(4, 4)).layers
    }
    for name, recipe in decided.items():
        channels = model.get_submodule(name).get_parameter("weight").shape[1]
        ranges = getattr(recipe.weight, "granularity", ""), getattr(recipe.weight, "group", 0)
        assert recipe.split == (0 if channels % 2 else channels // 2)
        assert ranges == (("channel", 64) if channels % 2 else ("group", channels // 2))
    assert not decided["vae.encoder.conv_in"].split  # three channels


def test_halves_keep_smaller_groups() -> None:
    layer = {"weight": {"kind": "minmax", "granularity": "group", "group": 2}, "input": {"kind": "dynamic"}}
    decided = plan(small(), method(layer=layer, split="halves"), Bits(4, 4)).layers
    assert {getattr(found.recipe.weight, "group", 0) for found in decided} == {2}


def test_what_cannot_be_split_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="halves have a weight range per output channel"):
        method(layer={"weight": {"kind": "minmax"}}, split="halves")
    with pytest.raises(ValueError, match="inputs of kind none have no ranges to split"):
        method(layer={"input": {"kind": "none"}}, split=True)
