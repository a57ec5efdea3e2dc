"""Statistics against the tensors themselves, and as a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qartsr.errors import QartsrError
from qartsr.quantize import Statistics, load_statistics, observe, quantizable
from tests.quantize.small import batches, small

PADDED = "unet.down_blocks.0.resnets.0.conv1"
LINEAR = "unet.down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj"


@pytest.fixture(scope="module")
def seen() -> tuple[Statistics, dict[str, Tensor]]:
    model = small()
    inputs: dict[str, list[Tensor]] = {PADDED: [], LINEAR: []}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda m, a, name=name: inputs[name].append(a[0]))
        for name in inputs
    ]
    with torch.no_grad():
        for batch in batches():
            model(batch)
    for handle in handles:
        handle.remove()
    padded = F.pad(torch.cat(inputs[PADDED]), (1, 1, 1, 1)).movedim(1, -1).flatten(0, -2)
    return observe(model, iter(batches())), {PADDED: padded, LINEAR: torch.cat(inputs[LINEAR]).flatten(0, -2)}


def test_every_layer_is_seen(seen: tuple[Statistics, dict[str, Tensor]]) -> None:
    assert set(seen[0].layers) == set(quantizable(small()))


@pytest.mark.parametrize("name", [PADDED, LINEAR])
def test_ends_and_histogram_are_those_of_the_input(name: str, seen: tuple[Statistics, dict[str, Tensor]]) -> None:
    found, x = seen[0][name], seen[1][name]
    torch.testing.assert_close(found.minimum, x.amin(0))
    torch.testing.assert_close(found.maximum, x.amax(0))
    torch.testing.assert_close(found.absmax, x.abs().amax(0))
    assert (found.counts.sum(1) == len(x)).all() and found.counts.dtype == torch.int32
    width = (found.maximum - found.minimum) / found.counts.shape[1]
    mean = (found.centres() * found.counts).sum(1) / len(x)
    assert ((mean - x.mean(0)).abs() <= width).all()
    halves = (found.counts[:, : found.counts.shape[1] // 2]).sum(1)
    assert (halves - (x < (found.minimum + found.maximum) / 2).sum(0)).abs().max() <= len(x) // 100


def test_it_leaves_no_trace_and_repeats_exactly(seen: tuple[Statistics, dict[str, Tensor]]) -> None:
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    again = observe(model, batches())
    assert all(not module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(a, b) for n in again.layers for a, b in zip(again[n], seen[0][n], strict=True))


def test_hooks_go_even_when_the_model_fails() -> None:
    model = small()
    with pytest.raises(RuntimeError):
        observe(model, [torch.zeros(1, 99, 16, 16)])
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_file_round_trip(seen: tuple[Statistics, dict[str, Tensor]], tmp_path: Path) -> None:
    seen[0].save(tmp_path / "a.safetensors")
    seen[0].save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    loaded = load_statistics(tmp_path / "a.safetensors")
    assert set(loaded.layers) == set(seen[0].layers)
    assert all(torch.equal(a, b) for n in loaded.layers for a, b in zip(loaded[n], seen[0][n], strict=True))


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match="cannot be read"):
        load_statistics(tmp_path / "none.safetensors")
    with pytest.raises(QartsrError, match="never seen"):
        Statistics({})["unet.conv_in"]


def test_layers_that_never_run_are_left_out() -> None:
    class Idle(nn.Module):
        parts = ("unet",)

        def __init__(self) -> None:
            super().__init__()
            self.unet = nn.ModuleDict({"a": nn.Linear(3, 3), "idle": nn.Linear(3, 3)})

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.unet["a"](x)
            return y

    assert set(observe(Idle(), [torch.randn(2, 3)]).layers) == {"unet.a"}
