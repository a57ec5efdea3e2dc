"""Low-rank paths beside a layer compute what the merged weight computes, train, and fold away without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from qartsr.models.adapters import ALPHA, Adapted, attach, fold
from qartsr.models.sd_unet.osediff import load_osediff, read_lora
from qartsr.models.sd_unet.pretrained import load_unet, load_vae

LAYERS = [
    nn.Linear(6, 4),
    nn.Conv2d(3, 5, 3, padding=1),
    nn.Conv2d(3, 5, 3, stride=2),
    nn.Conv2d(4, 4, 1, bias=False),
    nn.Conv2d(2, 3, (1, 5), padding=(0, 2)),
]


def random_paths(layer: nn.Module, *names: str) -> Adapted:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    adapted = Adapted(layer, rank=3)
    for name in names:
        adapted.add(name)
    for parameter in adapted.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    return adapted.requires_grad_(False)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_path_equals_its_weight(layer: nn.Module) -> None:
    adapted = random_paths(layer, "one", "two")
    x = torch.rand((2, 6) if isinstance(layer, nn.Linear) else (2, int(layer.in_channels), 9, 7))  # type: ignore[arg-type]
    expected = adapted(x)
    whole = nn.Sequential(adapted)
    fold(whole)
    assert whole[0] is layer
    torch.testing.assert_close(whole(x), expected, rtol=1e-5, atol=1e-4)


def test_a_fresh_path_is_zero_and_only_paths_get_gradients() -> None:
    layer = nn.Linear(6, 4).requires_grad_(False)
    adapted = Adapted(layer, rank=2)
    adapted.add("new")
    x = torch.rand(3, 6)
    assert torch.equal(adapted(x), layer(x))
    adapted(x).square().sum().backward()
    assert {name for name, p in adapted.named_parameters() if p.grad is not None} == {
        "lora_A.new.weight",
        "lora_B.new.weight",
    }


def test_scale_is_alpha_over_rank() -> None:
    adapted = Adapted(nn.Linear(1, 1, bias=False), rank=2)
    adapted.add("a")
    for parameter in adapted.parameters():
        nn.init.ones_(parameter)
    assert float(adapted.requires_grad_(False)(torch.ones(1, 1))) == 1 + ALPHA / 2 * 2


def test_keys_of_the_checkpoint_are_those_of_the_adapted_parts(base: Path, lora: Path) -> None:
    checkpoint = read_lora(lora)
    for part, adapters in ((load_unet(base), checkpoint.unet), (load_vae(base), checkpoint.vae)):
        attach(part, adapters)
        state = part.state_dict()
        stored = {key for key in state if ".lora_" in key or (adapters is checkpoint.unet and "conv_in" in key)}
        assert stored == adapters.state.keys()
        assert all(torch.equal(state[key], value) for key, value in adapters.state.items())


def test_folding_leaves_a_plain_model_that_computes_the_same(base: Path, lora: Path) -> None:
    merged, beside = (load_osediff(base, lora, "none", "a text", merge=merge) for merge in (True, False))
    assert any(isinstance(part, Adapted) for part in beside.modules())
    assert not any(isinstance(part, Adapted) for part in merged.modules())
    plain = set(load_unet(base).state_dict())
    assert set(merged.unet.state_dict()) == plain
    lq = torch.rand(1, 3, 36, 44, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = merged(lq)
        assert (beside(lq) - expected).abs().max() <= 1e-4 * expected.abs().max()
        fold(beside)
        assert torch.equal(beside(lq), expected)
