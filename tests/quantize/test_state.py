"""A quantized model there and back, and every way the files can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qartsr.config import Bits
from qartsr.errors import QartsrError
from qartsr.files import read_json, write_json
from qartsr.models import constants
from qartsr.quantize import apply, load_state, plan, quant_layers, round_for_storage, save_state
from tests.packing.tiny import network_input, recipe, tiny_model
from tests.packing.tiny import quantize as tiny_quantize
from tests.quantize.small import Small, batches, method, quantized, small


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Small, Path]:
    model, decided, _ = quantized(float_layers=("unet.conv_out",))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in quant_layers(model).values():
            for parameter in layer.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    round_for_storage(model)
    folder = tmp_path_factory.mktemp("state")
    save_state(model, decided, folder)
    return model, folder


def _copy(folder: Path, to: Path) -> Path:
    for name in ("plan.json", "state.safetensors"):
        (to / name).write_bytes((folder / name).read_bytes())
    return to


def _digest(folder: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(folder / "state.safetensors", "pt") as handle:
        found: dict[str, str] = handle.metadata()
        return found


def test_outputs_are_identical_after_loading(saved: tuple[Small, Path]) -> None:
    model, folder = saved
    loaded = small()
    decided = load_state(loaded, folder)
    assert decided.model_dump(mode="json") == read_json(folder / "plan.json")
    assert torch.equal(loaded(batches()[0]), model(batches()[0]))
    ours, theirs = loaded.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_original_weights_are_not_stored(saved: tuple[Small, Path]) -> None:
    stored = load_file(saved[1] / "state.safetensors")
    assert not any(f"{name}.weight" in stored for name in quant_layers(saved[0]))
    assert "unet.conv_out.weight" in stored  # a float layer, rounded for storage


def test_same_model_same_bytes(saved: tuple[Small, Path], tmp_path: Path) -> None:
    loaded = small()
    save_state(loaded, load_state(loaded, saved[1]), tmp_path)
    for name in ("plan.json", "state.safetensors"):
        assert (tmp_path / name).read_bytes() == (saved[1] / name).read_bytes()


def test_a_folded_model_is_loaded_folded(tmp_path: Path) -> None:
    model = tiny_model()
    save_state(model, tiny_quantize(model, "w3a3", recipe()), tmp_path)
    loaded = tiny_model()
    load_state(loaded, tmp_path)
    assert constants(loaded).keys() == constants(model).keys() != set()
    assert loaded.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(loaded(network_input()), model(network_input()))


def test_half_quantized_models_are_not_saved(tmp_path: Path) -> None:
    model = small()
    decided = plan(model, method(), Bits(4, 4))
    apply(model, decided, ["unet.conv_in"])
    with pytest.raises(ValueError, match="not quantized"):
        save_state(model, decided, tmp_path)


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_faulty_tensors_are_named(saved: tuple[Small, Path], tmp_path: Path, fault: str) -> None:
    folder = _copy(saved[1], tmp_path)
    tensors, key = load_file(folder / "state.safetensors"), "unet.conv_in.skip.left"
    if fault == "missing":
        del tensors[key]
    elif fault == "unknown":
        key = "unet.conv_in.extra"
        tensors[key] = torch.zeros(1)
    else:
        tensors[key] = tensors[key][:-1].contiguous()
    save_file(tensors, folder / "state.safetensors", _digest(folder))
    with pytest.raises(QartsrError, match=key):
        load_state(small(), folder)


def test_another_float_model_is_noticed(saved: tuple[Small, Path]) -> None:
    other = small()
    with torch.no_grad():
        other.unet.conv_in.weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(QartsrError, match="another floating-point model"):
        load_state(other, saved[1])


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 64])
@pytest.mark.parametrize("name", ["plan.json", "state.safetensors"])
def test_broken_files_are_named(saved: tuple[Small, Path], tmp_path: Path, name: str, content: bytes) -> None:
    folder = _copy(saved[1], tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(QartsrError, match=name):
        load_state(small(), folder)
    (folder / name).unlink()
    with pytest.raises(QartsrError, match=name):
        load_state(small(), folder)


def test_faulty_plans_are_named(saved: tuple[Small, Path], tmp_path: Path) -> None:
    folder = _copy(saved[1], tmp_path)

    def wrong(change: dict[str, Any], match: str) -> None:
        value = read_json(saved[1] / "plan.json")
        value["layers"][0] = {**value["layers"][0], **change}
        write_json(folder / "plan.json", value)
        with pytest.raises(QartsrError, match=match):
            load_state(small(), folder)

    wrong({"weight_bits": 99}, "weight_bits")
    wrong({"colour": 1}, "colour")
    wrong({"name": "unet.nowhere"}, r"unet\.nowhere")
