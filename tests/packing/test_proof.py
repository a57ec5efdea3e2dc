"""The proof lets a true package pass and finds every kind of falsehood."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.models import OneStepSR
from qartsr.packing import PackedLayer, layer_facts, load_package, prove_equal, write_package
from qartsr.packing.packed_layer import PackedTensor
from qartsr.packing.verify import seeded_images
from qartsr.quantize import quant_layers
from tests.packing.tiny import quantize, recipe, tiny_model


@pytest.fixture()
def pair(tmp_path: Path) -> tuple[OneStepSR, OneStepSR]:
    """A packed model, and the trained one it was made from."""
    trained = tiny_model()
    write_package(tmp_path / "p", trained, quantize(trained, "w4a4", recipe()), {})
    return load_package(tmp_path / "p"), trained


def _layer(model: OneStepSR) -> tuple[str, PackedLayer]:
    return next((name, part) for name, part in model.named_modules() if isinstance(part, PackedLayer))


def test_a_true_package_passes(pair: tuple[OneStepSR, OneStepSR]) -> None:
    prove_equal(*pair, seed=0)


def test_facts_of_layers(pair: tuple[OneStepSR, OneStepSR]) -> None:
    """Every quantized layer, in the order of inference; the error is that of an output computed here once more."""
    packed, trained = pair
    layers, caught = quant_layers(trained), list[tuple[Tensor, Tensor]]()
    facts = layer_facts(packed, trained, seed=0)
    assert {row["layer"] for row in facts} == set(layers)
    assert facts[0]["layer"] == "vae.encoder.conv_in" and facts[-1]["layer"] == "vae.decoder.conv_out"
    row = facts[3]
    part, twin = layers[row["layer"]], packed.get_submodule(row["layer"])
    assert isinstance(twin, PackedLayer) and isinstance(twin.weight, PackedTensor)
    codes = twin.weight.integers()
    assert row["codes"] == [int((codes == code).sum()) for code in range(16)] and sum(row["codes"]) == row["weights"]
    part.register_forward_hook(lambda _, inputs, output: caught.append((inputs[0], output)))
    trained(seeded_images(trained, 0))
    given, output = (value.double() for value in caught[0])
    weight, bias = (value.double() for value in (part.weight, part.bias))
    exact = part.op(part.op.pad(given), weight, bias)
    assert row["error"] == pytest.approx(float((output - exact).square().sum() / exact.square().sum()), rel=1e-3)


@pytest.mark.parametrize("tensor", ["weight.grid", "bias.grid", "input.grid", "transform.phi", "skip.left"])
def test_a_changed_layer_is_named(pair: tuple[OneStepSR, OneStepSR], tensor: str) -> None:
    name, layer = _layer(pair[0])
    with torch.no_grad():
        layer.get_buffer(tensor).mul_(1.01)
    with pytest.raises(QartsrError, match=name.replace(".", r"\.")):
        prove_equal(*pair, seed=0)


def test_a_single_wrong_code_is_found(pair: tuple[OneStepSR, OneStepSR]) -> None:
    _, layer = _layer(pair[0])
    layer.get_buffer("weight.codes")[0] ^= 0x0F
    with pytest.raises(QartsrError, match="computes something else"):
        prove_equal(*pair, seed=0)


def test_a_changed_norm_is_named(pair: tuple[OneStepSR, OneStepSR]) -> None:
    norm = pair[0].vae.decoder.conv_norm_out
    with torch.no_grad():
        norm.weight.add_(1e-6)
    with pytest.raises(QartsrError, match=r"vae\.decoder\.conv_norm_out\.weight"):
        prove_equal(*pair, seed=0)
