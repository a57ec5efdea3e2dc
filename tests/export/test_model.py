"""The whole network as a graph, of one size and of varying size, as a file and in another runtime."""

from __future__ import annotations

import re
import resource
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.export import build_model, build_picture, check_target, parts, serialized, step, write_onnx, write_openvino
from qartsr.export.graph import Graph
from qartsr.export.picture import enlarge
from qartsr.images import as_picture
from qartsr.models import OneStepSR
from qartsr.packing import load_package, write_package
from qartsr.upscale import upscale_image
from qartsr.upscale.enlarge import enlarged
from tests.export.runtimes import onnx_runtime, open_vino
from tests.house.project import ROOT
from tests.packing.tiny import network_input, quantize, recipe, tiny_model

SIZE = (16, 24)


@pytest.fixture(scope="module", autouse=True)
def _traced_once() -> Iterator[None]:
    """torch.export takes seconds for a network, and many graphs here are of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "trace_part", cache(parts.trace_part))
        yield


@pytest.fixture(scope="module")
def floating() -> OneStepSR:
    """In floating point, where no code can tip. Its colour fix is no part of a trace."""
    return tiny_model()


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


def test_openvino_runs_a_varying_graph(tmp_path: Path) -> None:
    """At 8 bits, where no code that tips is seen. Divided by phi first it had 21 dB on a CPU without VNNI."""
    model = tiny_model()
    write_package(tmp_path / "p", model, quantize(model, "w8a8", recipe()), {})
    packed, x = load_package(tmp_path / "p"), network_input()
    with torch.no_grad():
        assert psnr(open_vino(serialized(build_model(packed, None, {})))(x), packed(x)) > 35


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


def test_a_full_disk_is_one_sentence(tmp_path: Path, fixed: onnx.ModelProto) -> None:
    """No file may grow beyond 1000 bytes, which OpenVINO calls an iostream error."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(QartsrError, match=r"cannot be written .*; free some disk space"):
            write_openvino(tmp_path / "m.xml", fixed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_is_refused(packed: OneStepSR) -> None:
    with pytest.raises(QartsrError, match="16x18 is no size of this model"):
        build_model(packed, (16, 18), {})
    with pytest.raises(QartsrError, match=r"let it end in \.xml"):
        check_target(Path("m.onnx"), "openvino")


def picture(height: int, width: int) -> Image.Image:
    """Noise: every border and every rounding shows."""
    return Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8))


def planes(image: Image.Image) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize(("kind", "size"), [("none", None), ("adain", None), ("wavelet", None), ("wavelet", (9, 6))])
def test_a_picture_graph_does_all_that_upscale_does(
    kind: str, size: tuple[int, int] | None, floating: OneStepSR, monkeypatch: pytest.MonkeyPatch
) -> None:
    """x4, colour fix and clamp; rounding differs here and there."""
    monkeypatch.setattr(floating, "align", kind)
    image = picture(9, 6)
    expected = np.asarray(upscale_image(floating, image)).transpose(2, 0, 1)[None]
    found = onnx_runtime(serialized(build_picture(floating, size, {})), optimised=False)(planes(image))
    assert np.abs(found.numpy() * 255 - expected).max() < 0.75


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize(("height", "width"), [(9, 11), (1, 10), (2, 2), (8, 12)])
def test_pictures_are_enlarged_and_continued_as_in_the_pipeline(height: int, width: int, varying: bool) -> None:
    graph, image, size = Graph(), picture(height, width), None if varying else (height, width)
    padded = enlarge(graph, graph.input("image", (1, 3, *(size or ("h", "w")))), size, 16)
    graph.output("padded", padded.image, (1, 3, "H", "W"))
    source = enlarged(as_picture(image)).lq
    sides = [-(-side // 16) * 16 for side in source.shape[1:]]
    missing = [(0, side - given) for side, given in zip(sides, source.shape[1:], strict=True)]
    expected = np.pad(source, [(0, 0), *missing], mode="reflect")
    found = onnx_runtime(serialized(graph.model({})))(planes(image))
    difference = np.abs((found.numpy()[0] + 1) * 127.5 - expected)
    assert (
        difference.max() < 1.001 and (difference > 0.001).mean() < 0.005
    )  # Pillow's weights have 22 bits: a tie or so


def test_the_example_of_the_documents(floating: OneStepSR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line."""
    monkeypatch.chdir(tmp_path)
    image = picture(8, 12)
    write_onnx(Path("sr.onnx"), build_picture(floating, None, {}))
    image.save("photo.png")
    (example,) = re.findall(r"```python\n(import onnxruntime.*?)```", (ROOT / "docs/engines.md").read_text(), re.DOTALL)
    exec(example, {})
    with Image.open("photo_x4.png") as found:
        difference = np.abs(np.asarray(found).astype(int) - np.asarray(upscale_image(floating, image)))
    assert difference.max() <= 1
