"""What engines do with the parts of other methods: they compute the same, or refuse beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from qartsr.engines import Integer
from qartsr.engines.integer import IntegerLayer, TokenLayer
from qartsr.engines.openvino import OpenVINO
from qartsr.engines.triton_layer import convertible
from qartsr.models import OneStepSR
from qartsr.packing import load_package, prove_equal, write_package
from tests.packing.tiny import network_input, quantize, recipe, tiny_model

PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dynamic": ({"input": {"kind": "dynamic"}}, {}),
    "split": ({}, {"split": True}),
    "blocks": ({"skip": {"kind": "hsvd", "rank": 4}}, {}),
    "q-dit4sr": (
        {
            "transform": {"kind": "hadamard"},
            "weight": {"kind": "gaussian", "granularity": "channel"},
            "input": {"kind": "gaussian", "token": True},
            "skip": {"kind": "hsvd", "rank": 4, "basis": "rotated"},
        },
        {},
    ),
    "groups": ({"weight": {"kind": "lbq", "granularity": "group", "group": 2}}, {}),
}


def _packed(case: str, folder: Path) -> tuple[OneStepSR, OneStepSR]:
    changes, settings = PARTS[case]
    trained = tiny_model()
    write_package(folder / "p", trained, quantize(trained, "w4a4", recipe(**changes), **settings), {})
    return load_package(folder / "p"), trained


@pytest.mark.parametrize("case", PARTS)
def test_packages_are_proven_and_integers_agree(case: str, tmp_path: Path) -> None:
    packed, trained = _packed(case, tmp_path)
    prove_equal(packed, trained, seed=0)
    expected = packed(network_input())
    engine, device = Integer(), torch.device("cpu")
    if engine.refusal(packed, device):
        assert case in ("dynamic", "groups")  # then no layer at all has one grid per operand and output channel
        return
    found = engine.prepare(packed)
    layers = sum(isinstance(part, IntegerLayer | TokenLayer) for part in found.modules())
    assert layers
    assert (found(network_input()) - expected).abs().mean() < 0.1 * expected.std()  # codes may tip between layers


@pytest.mark.parametrize("case", PARTS)
def test_triton_converts_only_what_its_kernels_compute(case: str, tmp_path: Path) -> None:
    specs = [part.spec for part in _packed(case, tmp_path)[0].modules() if convertible(part)]
    assert not any(spec.input_dynamic or spec.input_split or spec.blocks[0] or spec.weight_groups > 1 for spec in specs)
    assert not any(spec.input_token or spec.rotation for spec in specs)


@pytest.mark.parametrize("case", ["dynamic", "split"])
def test_openvino_says_beforehand_what_it_cannot_express(case: str, tmp_path: Path) -> None:
    refusal = OpenVINO().refusal(_packed(case, tmp_path)[0], torch.device("cpu"))
    assert refusal is not None and ("no graph" in refusal or "not installed" in refusal)


def test_openvino_runs_rotations_tokens_and_blocks_of_convolutions(tmp_path: Path) -> None:
    packed, _ = _packed("q-dit4sr", tmp_path)
    expected, engine = packed(network_input()), OpenVINO()
    if (refusal := engine.refusal(packed, torch.device("cpu"))) is not None:
        pytest.skip(refusal)
    found = engine.prepare(packed)(network_input())
    assert (found - expected).abs().mean() < 0.1 * expected.std()  # codes may tip between layers
