"""The whole network as a graph, of one size and of varying size, as a file and in another runtime."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.export import build_model, check_target, serialized, step, write_onnx, write_openvino
from qartsr.models import OneStepSR
from qartsr.packing import load_package, write_package
from tests.export.runtimes import onnx_runtime, open_vino
from tests.packing.tiny import network_input, quantize, recipe, tiny_model

SIZE = (16, 24)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> OneStepSR:
    path = tmp_path_factory.mktemp("package") / "p"
    model = tiny_model()
    write_package(path, model, quantize(model, "w4a4", recipe(), float_layers=("unet.conv_out",)), {})
    return load_package(path)


@pytest.fixture(scope="module")
def fixed(packed: OneStepSR) -> onnx.ModelProto:
    return build_model(packed, SIZE, {"fact": "value"})


@pytest.fixture(scope="module")
def varying(packed: OneStepSR) -> onnx.ModelProto:
    return build_model(packed, None, {})


def psnr(left: Tensor, right: Tensor) -> float:
    """Of values in [-1, 1]."""
    return float(-10 * ((left - right).square().mean() / 4).log10())


def test_it_is_a_valid_graph_of_standard_operations(fixed: onnx.ModelProto) -> None:
    onnx.checker.check_model(fixed, full_check=True)
    assert [each.domain for each in fixed.opset_import] == [""]
    assert {each.key: each.value for each in fixed.metadata_props} == {"fact": "value"}


@pytest.mark.parametrize("graph", ["fixed", "varying"])
def test_node_by_node_it_is_our_network(graph: str, packed: OneStepSR, request: pytest.FixtureRequest) -> None:
    """Rounding in another order may tip a code; here none does."""
    x = network_input()
    with torch.no_grad():
        expected = packed(x)
    found = onnx_runtime(serialized(request.getfixturevalue(graph)), optimised=False)(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_varying_graph_takes_other_sizes(packed: OneStepSR, varying: onnx.ModelProto) -> None:
    run, least = onnx_runtime(serialized(varying), optimised=False), step(packed, "encoder")
    for sides in ((least, least), (2 * least, 5 * least)):
        x = torch.rand(1, 3, *sides, generator=torch.Generator().manual_seed(3)) * 2 - 1
        with torch.no_grad():
            assert psnr(run(x), packed(x)) > 60


def test_files_run(tmp_path: Path, packed: OneStepSR, fixed: onnx.ModelProto) -> None:
    """OpenVINO multiplies by 1 / phi: some codes tip, and in so small a network one of them is seen everywhere."""
    x, paths = network_input(), (tmp_path / "m.onnx", tmp_path / "m.xml")
    write_onnx(paths[0], fixed)
    write_openvino(paths[1], fixed)
    from_onnx, from_ir = (open_vino(path)(x) for path in paths)
    torch.testing.assert_close(from_onnx, from_ir, rtol=0, atol=1e-6)
    with torch.no_grad():
        assert psnr(from_ir, packed(x)) > 15
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.onnx", "m.xml"]


def test_what_cannot_be_is_refused(packed: OneStepSR) -> None:
    with pytest.raises(QartsrError, match="16x18 is no size of this model"):
        build_model(packed, (16, 18), {})
    with pytest.raises(QartsrError, match=r"let it end in \.xml"):
        check_target(Path("m.onnx"), "openvino")
