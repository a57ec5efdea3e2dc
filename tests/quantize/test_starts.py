"""Starts that need more than ranges: the search for phi, GPTQ, split inputs; and the patches they are computed from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qartsr.config import Bits
from qartsr.errors import QartsrError
from qartsr.layer import QuantLayer
from qartsr.quantize import (
    Statistics,
    apply,
    initialise,
    load_state,
    load_statistics,
    look,
    observe,
    parameters_by_role,
    patches_needed,
    plan,
    quant_layers,
    quantizable,
    quantize,
    save_state,
)
from qartsr.quantize.initialise import _transformed
from tests.quantize.small import Small, batches, method, small

PLAIN: dict[str, Any] = {
    "weight": {"kind": "minmax", "granularity": "channel"},
    "input": {"kind": "minmax"},
    "transform": {"kind": "none"},
    "skip": {"kind": "none"},
    "adapter": {"kind": "none"},
}
SEARCH = {"kind": "channel_search", "steps": 4, "patches": 100}
CONV = "unet.down_blocks.0.resnets.0.conv1"
LINEAR = "unet.down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj"


def _made(bits: Bits, **layer: Any) -> tuple[Small, Statistics]:
    model = small()
    decided = plan(model, method(layer={**PLAIN, **layer}), bits)
    statistics = observe(model, batches(), patches_needed(decided))
    apply(model, decided)
    initialise(model, statistics)
    return model, statistics


def _error(layer: QuantLayer, patches: Tensor) -> float:
    """Of the outputs at the patches; weights and inputs quantized."""
    inputs = layer.input_quantizer(layer.transform.input(patches)).flatten(1)
    skipped = patches.flatten(1) @ (layer.skip.matrix() + torch.zeros_like(layer.weight)).flatten(1).T
    out = inputs @ layer.weight_quantizer(layer.scaled_weight()).flatten(1).T + skipped
    return float((out - patches.flatten(1) @ layer.weight.flatten(1).T).square().mean().detach())


def test_patches_are_asked_for_and_kept() -> None:
    wanted = plan(small(), method(layer={**PLAIN, "transform": SEARCH}, float_layers=(LINEAR,)), Bits(4, 4))
    needed = patches_needed(wanted)
    assert LINEAR not in needed and set(needed.values()) == {100} and len(needed) == len(wanted.layers) - 1
    assert patches_needed(plan(small(), method(), Bits(4, 4))) == {}
    found, again = (observe(small(), batches(), {CONV: 100, LINEAR: 7}) for _ in range(2))
    assert found[CONV].patches.shape == (100, 8, 3, 3) and found[LINEAR].patches.shape[0] == 7
    assert torch.equal(found[CONV].patches, again[CONV].patches) and not len(found["unet.conv_in"].patches)
    plain = observe(small(), batches())
    assert all(torch.equal(a, b) for a, b in zip(found[CONV][:3], plain[CONV][:3], strict=True))


def test_patches_travel_with_the_statistics(tmp_path: Path) -> None:
    found = observe(small(), batches(), {CONV: 9})
    found.save(tmp_path / "s")
    loaded = load_statistics(tmp_path / "s")
    assert torch.equal(loaded[CONV].patches, found[CONV].patches) and not len(loaded[LINEAR].patches)


@pytest.mark.parametrize("parts", [{"transform": SEARCH}, {"rounding": {"kind": "gptq"}}], ids=["search", "gptq"])
def test_missing_patches_are_named(parts: dict[str, Any]) -> None:
    model = small()
    apply(model, plan(model, method(layer={**PLAIN, **parts}), Bits(4, 4)))
    with pytest.raises(QartsrError, match="patches"):
        initialise(model, observe(small(), batches()))


@pytest.mark.parametrize("skip", [{"kind": "none"}, {"kind": "svd", "rank": 2, "basis": "scaled"}], ids=["bare", "svd"])
def test_the_search_never_loses_to_a_candidate(skip: dict[str, Any]) -> None:
    model, statistics = _made(Bits(4, 4), transform=SEARCH, skip=skip)
    chosen = []
    for name in (CONV, LINEAR):
        layer, found = quant_layers(model)[name], statistics[name]
        ours = _error(layer, found.patches)
        errors = []
        for phi in layer.transform.candidates(found.absmax, layer.weight):
            layer.transform.adopt(phi)
            layer.skip.calibrate(layer.weight, layer.phi())
            layer.weight_quantizer.calibrate(layer.scaled_weight())
            layer.input_quantizer.calibrate(_transformed(layer, found))
            errors.append(_error(layer, found.patches))
        assert ours == pytest.approx(min(errors), rel=1e-5)
        chosen.append(errors.index(min(errors)))
    assert any(chosen)  # the identity is not the best everywhere


def test_gptq_never_loses_and_mostly_wins_on_the_patches() -> None:
    (nearest, _), (ours, statistics) = (
        _made(Bits(3, 8), **parts) for parts in ({}, {"rounding": {"kind": "gptq", "patches": 200}})
    )
    wins = 0
    theirs = quant_layers(nearest)
    for name, layer in quant_layers(ours).items():
        flat = statistics[name].patches.flatten(1)
        errors = [
            float((flat @ (q.weight_quantizer(q.scaled_weight()) - q.weight).flatten(1).T).square().sum())
            for q in (layer, theirs[name])
        ]
        assert errors[0] <= errors[1] * (1 + 1e-4) + 1e-9, name
        wins += errors[0] < 0.9 * errors[1]
    assert wins > len(theirs) / 2


def test_svdquant_is_a_row_that_comes_closer_than_minmax() -> None:
    lq, target = batches()[0], small()(batches()[0])
    svdquant = {
        "weight": {"kind": "minmax", "granularity": "group", "group": 4, "symmetric": True},
        "transform": SEARCH,
        "skip": {"kind": "svd", "rank": 4, "basis": "scaled"},
        "rounding": {"kind": "gptq", "patches": 200},
        "bias": {"bits": 0},
    }
    errors = [float((_made(Bits(4, 8), **parts)[0](lq) - target).square().mean().detach()) for parts in ({}, svdquant)]
    assert errors[1] < errors[0]


def test_stored_states_hold_the_new_parts(tmp_path: Path) -> None:
    layer = {
        **PLAIN,
        "weight": {"kind": "lbq", "granularity": "group", "group": 4},
        "skip": {"kind": "hsvd", "rank": 4},
        "rounding": {"kind": "learned"},
        "bias": {"bits": 8, "learnable": True},
    }
    model = small()
    decided = plan(model, method(layer=layer, split=True, bits_policy={"kind": "vasmp"}), Bits(4, 4))
    apply(model, decided)
    initialise(model, observe(small(), batches()))
    roles = parameters_by_role(model)
    assert roles["bias"] and roles["rounding"] and roles["skip"] and not roles["adapter"]
    save_state(model, decided, tmp_path)
    loaded = small()
    load_state(loaded, tmp_path)
    assert torch.equal(loaded(batches()[0]), model(batches()[0]))


@pytest.mark.parametrize("fixed", [False, True])
def test_qdit4sr_whole(tmp_path: Path, fixed: bool) -> None:
    """Rotation, Gaussian grids, a searched branch and exact bits; with a fixed input range it asks for patches."""
    layer = {
        **PLAIN,
        "weight": {"kind": "gaussian", "granularity": "channel"},
        "input": {"kind": "mse"} if fixed else {"kind": "gaussian", "token": True},
        "transform": {"kind": "hadamard"},
        "skip": {"kind": "hsvd", "rank": 4, "basis": "rotated", "search": True},
    }
    decided = plan(small(), method(layer=layer, bits_policy={"kind": "vasmp", "exact": True}), Bits(4, 4))
    sizes = {name: layer.get_parameter("weight").numel() for name, layer in quantizable(small()).items()}
    assert sum(sizes[one.name] * (one.weight_bits - 4) for one in decided.layers) == 0
    assert all(getattr(one.recipe.skip, "layout", None) for one in decided.layers)
    assert bool(patches_needed(decided)) == fixed
    made, lq = quantize(small(), decided, look(small(), decided, torch.cat(batches()))), batches()[0]
    exact = small()(lq)
    assert float((made(lq).detach() - exact).square().mean()) < 0.5 * float(exact.var())
    save_state(made, decided, tmp_path)
    loaded = small()
    load_state(loaded, tmp_path)
    assert torch.equal(loaded(lq), made(lq))


def test_joins_are_where_diffusers_joins() -> None:
    """Seen from outside: a joined input is one whose first channels are the tensor that its block was given."""
    model, seen = small(), dict[str, Tensor]()
    found = model.skip_joins()
    for name in found:
        if name.endswith("conv_shortcut"):
            model.get_submodule(name).register_forward_pre_hook(lambda m, a, name=name: seen.update({name: a[0]}))
    calls: list[tuple[Tensor, ...]] = []
    cat = torch.cat

    def spy(tensors: Any, dim: int = 0, **more: Any) -> Tensor:
        joined = cat(tensors, dim, **more)
        calls.append((joined, *tensors))
        return joined

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "cat", spy)
        model(batches()[0])
    assert len(seen) == 4 and len(found) == 8
    for name, x in seen.items():
        (parts,) = [call[1:] for call in calls if call[0] is x]
        assert parts[0].shape[1] == found[name] and parts[1].shape[1] == x.shape[1] - found[name]


def test_a_split_input_has_the_range_of_each_part() -> None:
    model = small()
    decided = plan(model, method(layer=PLAIN, split=True), Bits(4, 4))
    apply(model, decided)
    statistics = observe(small(), batches())
    initialise(model, statistics)
    splits = {layer.name: layer.recipe.split for layer in decided.layers if layer.recipe.split}
    assert splits == small().skip_joins()
    for name, boundary in splits.items():
        quantizer: Any = quant_layers(model)[name].input_quantizer
        found = statistics[name]
        for number, part in enumerate((slice(boundary), slice(boundary, None))):
            torch.testing.assert_close(quantizer.inner.lower[number, 0], found.minimum[part].amin())
            torch.testing.assert_close(quantizer.inner.upper[number, 0], found.maximum[part].amax())


@torch.no_grad()
@pytest.mark.parametrize("kind", ["lbq", "mse", "minmax"])
def test_headroom_reaches_beyond_all_that_calibration_saw(kind: str) -> None:
    """A value that only a user brings, 1.4 times the largest seen, is not cut off; other layers are as without it."""
    start = {"init": "mse"} if kind == "lbq" else {}
    layer = {**PLAIN, "input": {"kind": kind, **start}}
    models = {
        headroom: quantize(model, decided, look(model, decided, torch.cat(batches())))
        for headroom in (1.0, 1.5)
        for model in [small()]
        for decided in [plan(model, method(layer=layer, edge_layers=(CONV,), edge_headroom=headroom), Bits(4, 4))]
    }
    found = {headroom: quant_layers(model) for headroom, model in models.items()}
    model = small()
    seen = observe(model, batches(), {})[CONV]
    for end in (seen.minimum.min(), seen.maximum.max()):
        x, step = end * 1.4, float(end.abs()) / 50
        assert float((found[1.5][CONV].input_quantizer(x[None]) - x).abs()) < step
        assert float((found[1.0][CONV].input_quantizer(x[None]) - x).abs()) > 10 * step
    for name, other in found[1.0].items():
        if name != CONV:
            for key, value in other.state_dict().items():
                assert torch.equal(value, found[1.5][name].state_dict()[key]), (name, key)
