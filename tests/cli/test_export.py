"""``qartsr export`` writes graphs, and says in one sentence why it does not."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from qartsr.cli.export import _ENDINGS
from qartsr.export import FORMATS
from tests.cli.conftest import Qartsr


def test_onnx_of_one_size(package: Path, tmp_path: Path, qartsr: Qartsr) -> None:
    out = tmp_path / "m.onnx"
    said = qartsr("export", package, out, "--to", "onnx", "--size", 5, 7)
    assert (said.status, said.out) == (0, "")
    assert said.err == f"{out}: {out.stat().st_size:,} bytes\n"
    graph = onnx.load(out)
    (result,) = graph.graph.output
    assert [each.dim_value for each in result.type.tensor_type.shape.dim] == [1, 3, 20, 28]
    facts = {each.key: each.value for each in graph.metadata_props}
    assert facts["qartsr.scale"] == "4" and facts["qartsr.bits"] == "w4a4" and len(facts["qartsr.sha256"]) == 64


def test_the_network_alone(package: Path, tmp_path: Path, qartsr: Qartsr) -> None:
    out = tmp_path / "m.onnx"
    assert qartsr("export", package, out, "--to", "onnx", "--size", 16, "--network-only").status == 0
    graph = onnx.load(out)
    (result,) = graph.graph.output
    assert [each.dim_value for each in result.type.tensor_type.shape.dim] == [1, 3, 16, 16]
    assert {each.key: each.value for each in graph.metadata_props}["qartsr.align"] == "wavelet"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("m.bin", "--to", "onnx"), "is no name for onnx"),
        (("m.xml", "--to", "openvino", "--size", "x"), "'x' is no size"),
        (("m.xml", "--to", "openvino", "--size", 16, 16, 16), "'16 16 16' is no size"),
        (("m.xml", "--to", "openvino", "--size", 16, 0), "'16 0' is no size"),
        (("m", "--to", "diffusers", "--size", 16), "--size: is of graphs only"),
        (("m", "--to", "diffusers"), "is quantized or folded, which diffusers cannot load"),
        (("m.xml", "--to", "openvino", "--size", 16, 18, "--network-only"), "16x18 is no size of this model"),
    ],
)
def test_refusals(package: Path, tmp_path: Path, qartsr: Qartsr, words: tuple[object, ...], sentence: str) -> None:
    said = qartsr("export", package, tmp_path / str(words[0]), *words[1:])
    assert said.status == 1 and sentence in said.err and said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_told_at_once(package: Path, tmp_path: Path, qartsr: Qartsr) -> None:
    (tmp_path / "m.bin").mkdir()
    assert "m.bin: is a folder" in qartsr("export", package, tmp_path / "m.xml", "--to", "openvino").err
    (tmp_path / "file").touch()
    assert "file: is not a folder" in qartsr("export", package, tmp_path / "file" / "m.onnx", "--to", "onnx").err


def test_endings_are_those_of_the_room() -> None:
    assert _ENDINGS == FORMATS
