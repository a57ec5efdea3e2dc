"""Whole models in integers: the same images as the simulation, by request only."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from qartsr.engines import Integer, choose, engine_names
from qartsr.engines.integer import IntegerLayer
from qartsr.errors import QartsrError
from qartsr.models import OneStepSR
from qartsr.packing import PackedLayer, load_package, write_package
from tests.packing.tiny import network_input, quantize, recipe, tiny_model

CPU = torch.device("cpu")
NONE = {"kind": "none"}
LSQ = {"kind": "lsq", "granularity": "channel", "offset": True}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "w4a4": ("w4a4", {}, {}),
    "w2a2, floats kept": ("w2a2", {}, {"float_layers": ("vae.decoder.conv_out", "*.to_q")}),
    "w8a8, lsq+, affine": (
        "w8a8",
        {"weight": LSQ, "input": {"kind": "lsq", "offset": True}, "transform": {"kind": "channel_affine"}},
        {},
    ),
}


def packed(folder: Path, bits: str, changes: dict[str, Any], settings: dict[str, Any]) -> OneStepSR:
    model = tiny_model()
    plan = quantize(model, bits, recipe(**changes), **settings)
    write_package(folder / "p", model, plan, {})
    return load_package(folder / "p")


def compare(model: OneStepSR, engine: Integer, lq: torch.Tensor) -> tuple[OneStepSR, dict[str, float]]:
    """The prepared copy, and every layer's relative difference on the input it has in the simulation."""
    integer = engine.prepare(copy.deepcopy(model))
    twins, worst = dict(integer.named_modules()), dict[str, float]()

    def hook(name: str) -> Any:
        def look(_: Any, inputs: Any, output: torch.Tensor) -> None:
            worst[name] = float((twins[name](inputs[0]) - output).abs().max() / output.abs().max())

        return look

    handles = [m.register_forward_hook(hook(n)) for n, m in model.named_modules() if isinstance(m, PackedLayer)]
    with torch.no_grad():
        model(lq)
    for handle in handles:
        handle.remove()
    return integer, worst


@pytest.mark.parametrize("case", CASES)
def test_layers_and_images_are_those_of_the_simulation(tmp_path: Path, case: str) -> None:
    model, lq = packed(tmp_path, *CASES[case]), network_input()
    integer, worst = compare(model, Integer(), lq)
    assert {type(m) for n, m in integer.named_modules() if n in worst} == {IntegerLayer}
    assert any(".attn1.to_k" in name for name in worst) and any(".attn2.to_out" in name for name in worst)
    assert max(worst.values()) <= 1e-5
    with torch.no_grad():
        error = float((integer.restore(lq) - model.restore(lq)).square().mean())
    assert error <= 4 * 10**-4.5  # 45 dB on [-1, 1]: a code that tips over is all that may differ


def test_weights_alone_in_codes_are_left_to_the_simulation(tmp_path: Path) -> None:
    model = packed(tmp_path, "w4a8", {"input": NONE}, {})
    assert Integer().refusal(model, CPU) is not None
    with pytest.raises(QartsrError, match="no layer has codes"):
        choose("integer", model, CPU)


def test_it_runs_by_request_only(tmp_path: Path) -> None:
    model = packed(tmp_path, *CASES["w4a4"])
    assert "integer" in engine_names()
    assert choose("integer", model, CPU).engine.name == "integer"
    assert choose("auto", model, CPU).engine.name != "integer"
    with pytest.raises(QartsrError, match="reference for the CPU"):
        choose("integer", model, torch.device("meta"))
