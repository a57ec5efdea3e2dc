"""A packed layer computes what the trained layer computes: codes identical, outputs equal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from qartsr.config.parts import LayerRecipe
from qartsr.layer import QuantLayer, build_layer
from qartsr.packing import pack_layer
from qartsr.packing.packed_layer import PackedTensor
from qartsr.quantize import InputStatistics, Statistics, initialise
from qartsr.quantizers import encode
from tests.packing.tiny import recipe, trained

AFFINE = {"kind": "channel_affine"}
NONE = {"kind": "none"}
VARIANTS: dict[str, dict[str, Any]] = {
    "qartsr": {},
    "affine": {"transform": AFFINE},
    "no transform": {"transform": NONE},
    "no skip": {"skip": NONE},
    "no adapter": {"adapter": NONE},
    "bare": {"transform": NONE, "skip": NONE, "adapter": NONE},
    "minmax": {"weight": {"kind": "minmax"}, "input": {"kind": "minmax"}},
    "lsq": {"weight": {"kind": "lsq", "granularity": "channel"}, "input": {"kind": "lsq"}},
    "lsq+": {"weight": {"kind": "lsq", "offset": True}, "input": {"kind": "lsq", "offset": True}},
    "lsq whole": {"weight": {"kind": "lsq", "granularity": "channel", "offset": True, "init": "minmax"}},
    "integer base": {"weight": {"kind": "lsq", "offset": True, "init": "minmax"}, "rounding": {"kind": "integer"}},
    "percentile": {"weight": {"kind": "percentile"}, "input": {"kind": "percentile"}},
    "mse": {"weight": {"kind": "mse", "granularity": "channel"}, "input": {"kind": "mse"}},
    "symmetric": {"weight": {"kind": "minmax", "symmetric": True}, "input": {"kind": "percentile", "symmetric": True}},
    "groups": {"weight": {"kind": "lbq", "granularity": "group", "group": 3}},
    "groups lsq": {"weight": {"kind": "lsq", "granularity": "group", "group": 2}},
    "dynamic input": {"input": {"kind": "dynamic"}},
    "search": {"transform": {"kind": "channel_search", "steps": 3}},
    "rotated": {"transform": {"kind": "hadamard"}, "weight": {"kind": "gaussian", "granularity": "channel"}},
    "tokens": {"input": {"kind": "gaussian", "token": True}},
    "q-dit4sr": {
        "transform": {"kind": "hadamard"},
        "weight": {"kind": "gaussian", "granularity": "channel"},
        "input": {"kind": "gaussian", "token": True},
        "skip": {"kind": "hsvd", "rank": 4, "basis": "rotated"},
        "adapter": NONE,
    },
    "hsvd": {"skip": {"kind": "hsvd", "rank": 4}},
    "hsvd, blocks only": {"skip": {"kind": "hsvd", "rank": 3, "local": 1.0}},
    "gptq": {"rounding": {"kind": "gptq"}},
    "learned rounding": {"rounding": {"kind": "learned"}},
    "learned bias": {"bias": {"bits": 8, "learnable": True}},
    "learned float bias": {"bias": {"bits": 0, "learnable": True}},
    "float weight": {"weight": NONE},
    "float input": {"input": NONE},
    "float bias": {"bias": {"bits": 0}},
}
LAYERS = {
    "linear": lambda: nn.Linear(12, 10),
    "linear without bias": lambda: nn.Linear(7, 5, bias=False),
    "conv": lambda: nn.Conv2d(6, 10, 3, padding=1),
    "strided conv": lambda: nn.Conv2d(5, 4, 3, stride=2, padding=(1, 0)),
    "pointwise": lambda: nn.Conv2d(9, 3, 1),
}


def make(kind: str, layer: LayerRecipe, weight_bits: int, input_bits: int) -> tuple[QuantLayer, torch.Tensor]:
    torch.manual_seed(0)
    original = LAYERS[kind]()
    channels = original.weight.shape[1]
    x = torch.randn((2, channels, 9, 8) if isinstance(original, nn.Conv2d) else (2, 5, channels))
    flat = x.movedim(1, -1).flatten(0, -2) if isinstance(original, nn.Conv2d) else x.flatten(0, -2)
    counts = torch.stack([torch.histc(column, 512) for column in flat.T]).int()
    made_layer = build_layer(original, "a", layer, weight_bits, input_bits)
    model = nn.ModuleDict({"a": made_layer})
    op, shape = made_layer.op, tuple(original.weight.shape)
    patches = op.patches(op.pad(x), shape, torch.arange(op.positions(op.pad(x), shape)))
    initialise(model, Statistics({"a": InputStatistics(flat.amin(0), flat.amax(0), counts, patches)}))
    trained(model)
    made = model["a"]
    assert isinstance(made, QuantLayer)
    return made, x


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_output_equals_the_trained_layer(kind: str, variant: str) -> None:
    layer, x = make(kind, recipe(**VARIANTS[variant]), 3, 5)
    packed = pack_layer(layer)
    with torch.no_grad():
        assert torch.equal(packed(x), layer(x))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_codes_are_those_of_the_quantizer(bits: int) -> None:
    layer, _ = make("conv", recipe(), bits, bits)
    packed = pack_layer(layer).weight
    assert isinstance(packed, PackedTensor)
    with torch.no_grad():
        weight = layer.scaled_weight()
        assert torch.equal(packed.integers().long(), encode(weight, layer.weight_quantizer.grid(weight)))
        assert torch.equal(packed(), layer.weight_quantizer(weight))
    assert packed.codes.numel() == -(-weight.numel() * bits // 8)


@pytest.mark.parametrize("kind", LAYERS)
def test_split_inputs_are_packed(kind: str) -> None:
    layer, x = make(kind, recipe(split=2), 3, 5)
    packed = pack_layer(layer)
    assert packed.spec.input_split == 2 and packed.get_buffer("input.grid").shape == (2, 2)
    with torch.no_grad():
        assert torch.equal(packed(x), layer(x))


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_halves_of_inputs_and_weights_with_ranges_as_they_come_are_packed(kind: str) -> None:
    half = {"linear": 6, "conv": 3}[kind]
    weight = {"kind": "minmax", "granularity": "group", "group": half}
    layer, x = make(kind, recipe(weight=weight, input={"kind": "dynamic"}, split=half), 3, 5)
    packed = pack_layer(layer)
    assert (packed.spec.input_split, packed.spec.input_dynamic, packed.spec.weight_groups) == (half, True, 2)
    assert "input.grid" not in packed.state_dict()
    with torch.no_grad():
        assert torch.equal(packed(x), layer(x))


def test_what_is_stored_of_groups_blocks_and_dynamic_ranges() -> None:
    changes = {
        "weight": {"kind": "lbq", "granularity": "group", "group": 3},
        "input": {"kind": "dynamic"},
        "skip": {"kind": "hsvd", "rank": 4},
    }
    layer, _ = make("conv", recipe(**changes), 3, 5)
    packed = pack_layer(layer)
    spec, names = packed.spec, packed.state_dict()
    assert (spec.weight_groups, spec.input_dynamic, spec.rank) == (2, True, 2) and min(spec.blocks) > 0
    assert names["weight.grid"].shape == (2, 10, 2, 1, 1) and "input.grid" not in names
    assert sum(names[name].numel() for name in names if name.startswith("skip.")) <= 4 * (10 + 54)


def test_a_constant_layer_survives() -> None:
    layer, x = make("conv", recipe(adapter=NONE, skip=NONE), 4, 4)
    layer.weight.zero_()
    layer.bias.fill_(0.25)
    packed = pack_layer(layer)
    with torch.no_grad():
        assert torch.equal(packed(x), layer(x))
        assert packed(x).isfinite().all()
