"""The proof lets a true package pass and finds every kind of falsehood."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qartsr.errors import QartsrError
from qartsr.models import OneStepSR
from qartsr.packing import PackedLayer, load_package, prove_equal, write_package
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
