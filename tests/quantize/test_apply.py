"""Structure in place, unit by unit; initial values; roles; rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qartsr.config import Bits
from qartsr.errors import QartsrError
from qartsr.layer import QuantLayer
from qartsr.quantize import apply, initialise, observe, parameters_by_role, plan, quant_layers, round_for_storage
from tests.quantize.small import batches, method, quantized, small, statistics_of_small

PLAIN: dict[str, Any] = {
    "weight": {"kind": "none"},
    "input": {"kind": "none"},
    "bias": {"bits": 0},
}


@pytest.mark.parametrize("transform", ["channel_scale", "channel_affine"])
def test_without_quantizers_the_model_is_the_original(transform: str) -> None:
    model = small().double()
    lq = batches()[0].double()
    before = model(lq)
    layer = {**PLAIN, "transform": {"kind": transform}, "skip": {"kind": "svd", "rank": 2, "basis": "scaled"}}
    decided, statistics = plan(model, method(layer=layer), Bits(4, 4)), observe(model, [lq])
    apply(model, decided)
    initialise(model, statistics)
    assert len(quant_layers(model)) == len(decided.layers)
    torch.testing.assert_close(model(lq), before, rtol=0, atol=1e-10)


def test_eight_bits_are_close_and_two_are_not() -> None:
    lq = batches()[0]
    target = small()(lq)
    errors = [((quantized(Bits(b, b))[0](lq) - target).square().mean() / target.var()).item() for b in (8, 4, 2)]
    assert errors[0] < 0.02 and errors[0] < errors[1] < errors[2]


def test_unit_by_unit_equals_all_at_once() -> None:
    model, statistics = small(), statistics_of_small()
    decided = plan(model, method(), Bits(4, 4))
    names = [layer.name for layer in decided.layers]
    for part in (names[40:], names[:25], names[25:40]):
        apply(model, decided, part)
        initialise(model, statistics, part)
    whole = quantized()[0]
    ours, theirs = model.state_dict(), whole.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_float_layers_stay() -> None:
    model, _, _ = quantized(float_layers=("unet.conv_out",))
    assert isinstance(model.get_submodule("unet.conv_out"), torch.nn.Conv2d)
    assert isinstance(model.get_submodule("unet.conv_in"), QuantLayer)


def test_wrong_names_are_refused() -> None:
    model = small()
    decided = plan(model, method(), Bits(4, 4))
    with pytest.raises(ValueError, match="not in the plan"):
        apply(model, decided, ["unet.nowhere"])
    apply(model, decided, ["unet.conv_in"])
    with pytest.raises(QartsrError, match=r"unet\.conv_in"):
        apply(model, decided, ["unet.conv_in"])


def test_roles_hold_every_parameter_once() -> None:
    model, _, _ = quantized()
    roles = parameters_by_role(model)
    assert list(roles) == ["transform", "skip", "adapter", "quantizer", "rounding", "bias"]
    assert {role for role, found in roles.items() if not found} == {"rounding", "bias"}
    listed = {name: parameter for role in roles.values() for name, parameter in role}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert listed.keys() == trained.keys() and all(listed[name] is p for name, p in trained.items())
    only = parameters_by_role(model, ["unet.conv_in"])
    assert {name.rpartition(".")[0].rpartition(".")[0] for r in only.values() for name, _ in r} == {"unet.conv_in"}


def test_a_method_without_trained_parts_has_empty_roles() -> None:
    plain = {"weight": {"kind": "minmax"}, "input": {"kind": "minmax"}}
    none = {"kind": "none"}
    model, _, _ = quantized(layer={**plain, "transform": none, "skip": none, "adapter": none})
    assert parameters_by_role(model) == {
        role: [] for role in ("transform", "skip", "adapter", "quantizer", "rounding", "bias")
    }


def test_gradients_reach_every_role_but_no_original() -> None:
    model, _, _ = quantized()
    model(batches()[0]).square().mean().backward()
    roles = parameters_by_role(model)
    for role, parameters in roles.items():
        assert not parameters or any(p.grad is not None and p.grad.any() for _, p in parameters), role
        assert all(p.grad is None or p.grad.isfinite().all() for _, p in parameters)
    assert all(layer.weight.grad is None for layer in quant_layers(model).values())


def test_input_ranges_match_the_transformed_input() -> None:
    """Min/max init through the statistics equals calibration on the very tensor."""
    settings = {"input": {"kind": "lbq", "init": "minmax"}}
    model, _, _ = quantized(layer=settings)
    name = "unet.down_blocks.0.resnets.0.conv1"
    original, layer = small(), quant_layers(model)[name]
    inputs: list[torch.Tensor] = []
    original.get_submodule(name).register_forward_pre_hook(lambda m, a: inputs.append(a[0]))
    for batch in batches():
        original(batch)
    seen = layer.transform.input(layer.op.pad(torch.cat(inputs)))
    quantizer: Any = layer.input_quantizer
    torch.testing.assert_close(quantizer.lower, seen.amin())
    torch.testing.assert_close(quantizer.upper, seen.amax())


def test_rounding_is_to_16_bits_idempotent_and_spares_the_rest() -> None:
    model, _, _ = quantized()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    round_for_storage(model)
    after = {name: value.clone() for name, value in model.state_dict().items()}
    round_for_storage(model)
    assert all(torch.equal(after[name], value) for name, value in model.state_dict().items())
    layers = quant_layers(model)
    for name, value in after.items():
        owner = name.partition(".adapter")[0].partition("_quantizer")[0].rpartition(".")[0]
        spared = name.removesuffix(".weight") in layers or "_quantizer." in name or ".adapter." in name
        assert torch.equal(value, before[name] if spared else before[name].half().float()), (owner, name)


def test_values_beyond_16_bits_are_named() -> None:
    model, _, _ = quantized()
    with torch.no_grad():
        parameter = dict(model.named_parameters())["unet.conv_in.skip.left"]
        parameter.view(-1)[0] = 1e6
    with pytest.raises(QartsrError, match=r"unet\.conv_in\.skip\.left"):
        round_for_storage(model)
