"""The whole model on integer kernels, and when the engine refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from qartsr.engines import choose, engine_names
from qartsr.engines.triton import FusedBlock, Triton, Typed
from qartsr.engines.triton_layer import KernelLayer
from qartsr.errors import QartsrError
from qartsr.kernels.plain import PlainKernels
from qartsr.models import OneStepSR
from qartsr.packing import PackedLayer, load_package, write_package
from qartsr.upscale.network import network_of
from qartsr.upscale.shared_norms import observe
from tests.packing.tiny import network_input, quantize, recipe, tiny_model

PLAIN = PlainKernels()
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, model = tmp_path_factory.mktemp("package") / "model.safetensors", tiny_model()
    write_package(path, model, quantize(model, "w8a8", recipe()), {})
    return path


def rebuilt(path: Path, **settings: Any) -> OneStepSR:
    return Triton(**{"dtype": torch.float32, "graphs": False, **settings}).rebuilt(load_package(path), PLAIN)


def difference(model: OneStepSR, other: OneStepSR, x: Tensor) -> float:
    """Mean, relative to the deviation of the output: single codes may differ, and spread."""
    with torch.no_grad():
        expected = other(x)
        return float((model(x) - expected).abs().mean() / expected.std())


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "packed"])
def test_the_model_computes_what_it_computed(package: Path, resident: bool) -> None:
    """Part by part, on the input it has in the simulated model: through many layers, single codes tip and spread."""
    made, simulated = rebuilt(package, resident=resident), load_package(package)
    twins = {name: part for name, part in made.named_modules() if isinstance(part, KernelLayer | FusedBlock)}
    off: dict[str, float] = {}

    def compare(name: str, inputs: tuple[Any, ...], output: Tensor) -> None:
        found = twins[name](*inputs)
        off[name] = float((found - output).abs().mean() / output.std())

    parts = dict(simulated.named_modules())
    for name in twins:
        if name in parts:  # those inside a fused block have other names
            parts[name].register_forward_hook(lambda _, inputs, output, name=name: compare(name, inputs, output))
    with torch.no_grad():
        simulated(network_input())
    assert len(off) > 20 and max(off.values()) < 1e-4
    assert difference(made, load_package(package), network_input()) < 0.05


def test_half_precision_is_inside_only(package: Path) -> None:
    model, x = rebuilt(package, dtype=torch.float16), network_input()
    assert difference(model, load_package(package), x) < 0.1
    with torch.no_grad():
        assert model(x).dtype == torch.float32
    assert model.unet.conv_norm_out.weight.dtype == torch.float16


def test_every_packed_layer_and_residual_block_is_replaced(package: Path) -> None:
    before, after = load_package(package), rebuilt(package)
    assert not any(isinstance(module, PackedLayer | ResnetBlock2D) for module in after.modules())
    assert count(after, FusedBlock) == count(before, ResnetBlock2D)
    assert count(after, KernelLayer) == count(before, PackedLayer)
    assert count(after, nn.GroupNorm) == count(before, nn.GroupNorm)


def test_tiles_can_share_their_statistics(package: Path) -> None:
    """Norms with hooks are called as modules. With statistics this far off, a code that differs spreads."""
    x, other = network_input(), network_input(seed=5)
    outputs = []
    for model in (rebuilt(package), load_package(package)):
        with torch.no_grad():
            norms = network_of(model).norms()
            found = observe(norms, model, [(other, np.ones((16, 24), np.float32))], 2)
            with norms.imposed(found):
                outputs.append(model(x))
    without = model(x)
    assert float((outputs[0] - outputs[1]).abs().mean()) < 0.25 * float((without - outputs[1]).abs().mean())


def test_layers_in_floating_point_keep_their_precision(tmp_path: Path) -> None:
    path, model = tmp_path / "model.safetensors", tiny_model()
    write_package(path, model, quantize(model, "w8a8", recipe(weight={"kind": "none"})), {})
    made = rebuilt(path, dtype=torch.float16)
    assert count(made, KernelLayer) == 0 and count(made, Typed) > 0
    assert difference(made, load_package(path), network_input()) < 0.1


def test_the_processor_is_refused_and_auto_goes_on() -> None:
    assert "triton" in engine_names()
    chosen = choose("auto", tiny_model(), CPU)
    assert chosen.engine.name != "triton"
    with pytest.raises(QartsrError, match="engine triton cannot run here"):
        choose("triton", tiny_model(), CPU)


@pytest.mark.parametrize(
    ("found", "capability", "reason"),
    [
        (False, (9, 0), "not installed"),
        (True, (7, 5), "capability is below 8.0"),
        (True, (9, 0), "no integer layers"),
    ],
)
def test_reasons(found: bool, capability: tuple[int, int], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if found else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert reason in str(Triton().refusal(tiny_model(), torch.device("cuda")))


def test_a_packed_model_on_a_recent_gpu_is_accepted(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert Triton().refusal(load_package(package), torch.device("cuda")) is None


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
def test_on_a_gpu(package: Path, graphs: bool) -> None:
    model = Triton(torch.float32, graphs=graphs).prepare(load_package(package).cuda())
    for seed in (2, 3):  # the second replays what the first recorded
        x = network_input(seed).cuda()
        assert difference(model, load_package(package).cuda(), x) < 1e-2


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())
