"""The computed size of a package is that of the file really written, to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qartsr.artifact.header import read_head
from qartsr.config import parse_bits
from qartsr.cost import package_size, qartsr_method
from qartsr.cost.package_size import spec_of
from qartsr.models import OneStepSR
from qartsr.packing import write_package
from qartsr.quantize import plan
from qartsr.synthetic import ARCHITECTURES, blank
from tests.packing.tiny import quantize, recipe, tiny_model

NONE = {"kind": "none"}
LSQ = {"kind": "lsq", "granularity": "channel"}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "w2a2": ("w2a2", {}, {}),
    "w3a5 with edges": ("w3a5", {}, {"edge_layers": ("unet.conv_*", "vae.*.conv_out")}),
    "w4a4 kept float": ("w4a4", {}, {"float_layers": ("vae.decoder.conv_out", "unet.time_embedding.*")}),
    "affine": ("w8a8", {"transform": {"kind": "channel_affine"}}, {}),
    "affine, float bias": ("w8a8", {"transform": {"kind": "channel_affine"}, "bias": {"bits": 0}}, {}),
    "bare": ("w7a6", {"transform": NONE, "skip": NONE, "adapter": NONE, "bias": {"bits": 0}}, {}),
    "per tensor": ("w5a5", {"weight": {"kind": "lbq"}}, {}),
    "lsq": ("w6a6", {"weight": LSQ, "input": {"kind": "lsq"}}, {}),
    "rank beyond the layers'": ("w4a4", {"skip": {"kind": "svd", "rank": 1000}}, {}),
    "weights only": ("w4a8", {"input": NONE}, {}),
    "inputs only": ("w4a8", {"weight": NONE}, {}),
    "all float": ("w4a8", {}, {"float_layers": ("*",)}),
}
PROVENANCE = {"profile": "test", "commit": "0" * 40, "author": 'é "quoted"'}


@pytest.mark.parametrize("case", CASES)
def test_tiny_packages(tmp_path: Path, case: str) -> None:
    bits, changes, settings = CASES[case]
    model = tiny_model()
    decided = quantize(model, bits, recipe(**changes), **settings)
    write_package(tmp_path / "p", model, decided, PROVENANCE)
    layers = {layer.name: layer for layer in decided.layers}
    packed = read_head(tmp_path / "p").header.specs()
    assert {name: spec_of(layers[name], spec.shape) for name, spec in packed.items()} == packed
    assert package_size(tiny_model(), decided, PROVENANCE) == (tmp_path / "p").stat().st_size


def test_a_sample_package_from_its_architecture_alone(model: OneStepSR, tmp_path: Path) -> None:
    method = qartsr_method("osediff", rank=4)  # whose ranges are not searched for: that changes no size
    settings = method.model_dump(include={"edge_bits", "edge_layers"})
    decided = quantize(model, "w3a3", method.layer, **settings)
    write_package(tmp_path / "p", model, decided, {"profile": "sample"})
    blank_model = blank(ARCHITECTURES["sample"]())
    again = plan(blank_model, method, parse_bits("w3a3")).model_copy(update={"method": decided.method})
    assert again == decided
    assert package_size(blank_model, again, {"profile": "sample"}) == (tmp_path / "p").stat().st_size
