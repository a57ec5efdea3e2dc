"""The OpenVINO engine gives the packed model's image, in one piece and in tiles, and starts quickly the second time."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from qartsr.engines import choose, openvino
from qartsr.engines.openvino import OpenVINO, fingerprint
from qartsr.errors import QartsrError
from qartsr.models import OneStepSR
from qartsr.packing import load_package, write_package
from qartsr.runtime import graphs
from qartsr.runtime.moments import Moments, Norms
from qartsr.upscale import upscale_image
from qartsr.upscale.network import network_of
from tests.export.test_model import psnr
from tests.packing.tiny import network_input, quantize, recipe, tiny_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "p"
    model = tiny_model(align="none")
    write_package(path, model, quantize(model, "w8a8", recipe()), {})
    return path


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def packed(file: Path) -> OneStepSR:
    return load_package(file)


@pytest.fixture(scope="module")
def fast(file: Path) -> OneStepSR:
    return OpenVINO().prepare(load_package(file))


@torch.no_grad()
def test_images_and_batches(packed: OneStepSR, fast: OneStepSR) -> None:
    two = torch.cat([network_input(2), network_input(3)])
    found = fast(two)
    assert found.isfinite().all() and psnr(found, packed(two)) > 35
    assert torch.equal(found[1:], fast(two[1:]))
    noise = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    assert psnr(fast(two[:1], noise), packed(two[:1], noise)) > 35
    assert not torch.equal(fast(two[:1], noise), found[:1])


def norms_of(model: OneStepSR) -> Norms:
    return network_of(model).norms()


def moments(model: OneStepSR, weight: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Any] = {}
    with torch.no_grad(), norms_of(model).watched(weight.numpy(), seen.__setitem__):
        model(network_input())
    return {name: torch.from_numpy(value) for name, value in seen.items()}


def test_moments_are_those_of_the_modules(packed: OneStepSR, fast: OneStepSR) -> None:
    weight = torch.rand(16, 24, generator=torch.Generator().manual_seed(0))
    expected, found = moments(packed, weight), moments(fast, weight)
    assert list(found) == list(expected) and len(found) == norms_of(fast).count() == norms_of(packed).count()
    first = next(iter(expected))
    torch.testing.assert_close(found[first], expected[first], rtol=1e-5, atol=1e-6)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0.05, atol=0.05, msg=lambda text, name=name: name + text)


@torch.no_grad()
def test_imposed_moments_are_used(packed: OneStepSR, fast: OneStepSR) -> None:
    """Moments of another image: as different from the plain result as in the model of modules."""
    with torch.no_grad():
        seen = {name: Moments(*value.float().numpy()) for name, value in moments(packed, torch.ones(16, 24)).items()}
    other = network_input(5)
    with norms_of(packed).imposed(seen):
        expected = packed(other)
    with norms_of(fast).imposed(seen):
        found = fast(other)
    assert psnr(found, expected) > 35 > psnr(packed(other), expected)
    with pytest.raises(ValueError, match="no moments for"), norms_of(fast).imposed(dict(list(seen.items())[:3])):
        fast(other)


def test_tiles(packed: OneStepSR, fast: OneStepSR) -> None:
    pixels = torch.randint(0, 256, (9, 11, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(pixels.numpy())
    tiled = [upscale_image(model, image, tile=24, overlap=8) for model in (packed, fast)]
    expected, found = (torch.frombuffer(bytearray(each.tobytes()), dtype=torch.uint8) for each in tiled)
    assert psnr(found.float() / 127.5, expected.float() / 127.5) > 30


@torch.no_grad()
def test_attention_over_many_positions_is_not_in_bf16(fast: OneStepSR, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = fast._graphs
    monkeypatch.setattr(graphs, "_core", SimpleNamespace(get_property=lambda *names: ["FP32", "BF16"]))

    def hint(part: str, side: int) -> str:
        return str(graphs._settings(part, graphs._norms.mode(), (side, side))["INFERENCE_PRECISION_HINT"])

    assert [hint("denoiser", side) for side in (64, 100, 101, 128)] == ["bf16", "bf16", "f32", "f32"]
    assert hint("decoder", 128) == "bf16"


def test_the_second_start_compiles_nothing(file: Path, fast: OneStepSR, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fast(network_input())

    def never(*_: object) -> None:
        raise AssertionError("a graph was made again")

    monkeypatch.setattr(openvino, "skeleton", never)
    assert torch.equal(OpenVINO().prepare(load_package(file))(network_input()), expected)


def test_a_fingerprint_is_of_all_values(file: Path) -> None:
    model = load_package(file)
    before = fingerprint(model)
    assert fingerprint(load_package(file)) == before
    model.unet.conv_norm_out.weight[0] += 1
    assert fingerprint(model) != before


@pytest.mark.long
@torch.no_grad()
def test_an_unusable_cache_is_no_fault(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qartsr").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert OpenVINO().prepare(load_package(file))(network_input()).isfinite().all()


def test_sums_of_bytes_are_exact_on_this_cpu() -> None:
    core = graphs.import_openvino().Core()
    assert graphs._sum_of_products(core, graphs.exact_products()) == pytest.approx(64 * 127 * 255, rel=1e-3)


def test_a_cpu_that_cuts_sums_off_sums_in_floating_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without VNNI 16 bits hold the sum of two products: 32,767 for each pair of them."""
    whole, exact_products = 64 * 127 * 255, graphs.exact_products.__wrapped__
    monkeypatch.setattr(graphs, "exact_products", exact_products)  # not what this process knows of its own CPU
    monkeypatch.setattr(graphs, "_sum_of_products", lambda core, settings: whole if settings else 32 * 32767)
    assert graphs.exact_products() == {"LP_TRANSFORMS_MODE": "NO"}
    made = graphs.Graphs(None, None, 1)  # type: ignore[arg-type]
    assert made._settings("decoder", "plain", (8, 8))["LP_TRANSFORMS_MODE"] == "NO"
    monkeypatch.setattr(graphs, "_sum_of_products", lambda core, settings: 32 * 32767)
    with pytest.raises(QartsrError, match=r"overflow on this CPU; use another engine"):
        graphs.exact_products()


def test_auto_takes_it_for_packed_models_on_cpus(packed: OneStepSR, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("auto", packed, CPU).engine.name == "openvino"
    assert OpenVINO().refusal(packed, torch.device("cuda")) == "it runs on CPUs only"
    assert OpenVINO().refusal(tiny_model(), CPU) == "the model is not packed"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    chosen = choose("auto", packed, CPU)
    assert chosen.engine.name == "simulated"
    assert "openvino and onnx not installed; pip install 'qartsr[openvino]'" in chosen.reason
