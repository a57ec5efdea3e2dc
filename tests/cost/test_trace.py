"""Counts against closed forms, and against torch's own counter of operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from qartsr.cost import Work, trace
from qartsr.models import OneStepSR
from qartsr.synthetic import ARCHITECTURES, blank


class Attention(nn.Module):
    """Six queries, four keys, two heads of three values."""

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x.expand(1, 2, 6, 3), x.expand(1, 2, 4, 3), value=x.expand(1, 2, 4, 3))


def by_name(works: tuple[Work, ...]) -> dict[str, Work]:
    return {work.name: work for work in works}


def test_a_small_net_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1, bias=False), nn.Flatten(),
        nn.Linear(4 * 5 * 4, 7), nn.LayerNorm(7), nn.SiLU(),
    )  # fmt: skip
    found = by_name(trace(net, torch.zeros(2, 3, 10, 8)))
    assert found == {
        "0": Work("0", "conv3x3", (8, 3, 3, 3), 8 * 3 * 9 + 8, 2 * 8 * 5 * 4 * 3 * 9, 2 * 8 * 5 * 4),
        "1": Work("1", "group norm", (8,), 16, 0, 2 * 8 * 5 * 4),
        "2": Work("2", "conv1x1", (4, 8, 1, 1), 4 * 8, 2 * 4 * 5 * 4 * 8, 2 * 4 * 5 * 4),
        "4": Work("4", "linear", (7, 80), 7 * 80 + 7, 2 * 7 * 80, 2 * 7),
        "5": Work("5", "layer norm", (7,), 14, 0, 2 * 7),
    }


def test_attention_is_two_products_in_the_module_that_computes_them() -> None:
    (work,) = trace(nn.Sequential(Attention()), torch.zeros(1, 1, 1, 1))
    assert work == Work("0", "attention", (), 0, 2 * 6 * 4 * 3 + 2 * 6 * 4 * 3, 2 * 6 * 3)


def test_what_runs_twice_counts_twice_and_what_never_runs_keeps_its_parameters() -> None:
    shared = nn.Linear(4, 4)
    net = nn.ModuleDict({"shared": shared, "idle": nn.Conv2d(1, 2, (3, 1)), "table": nn.Embedding(5, 6)})
    net.forward = lambda x: shared(shared(x))  # type: ignore[method-assign]
    found = by_name(trace(net, torch.zeros(3, 4)))
    assert (found["shared"].params, found["shared"].macs) == (20, 2 * 3 * 16)
    assert (found["idle"].kind, found["idle"].params, found["idle"].macs) == ("conv3x1", 8, 0)
    assert (found["table"].kind, found["table"].params) == ("other", 30)


def test_no_hook_is_left_behind(model: OneStepSR) -> None:
    trace(model, torch.zeros(1, 3, 32, 32))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_meta_device_counts_what_a_real_run_counts(model: OneStepSR) -> None:
    size = (1, 3, 64, 48)
    assert trace(blank(ARCHITECTURES["sample"]()), torch.empty(size, device="meta")) == trace(model, torch.zeros(size))


def test_hooks_of_another_kind_count_the_same(model: OneStepSR) -> None:
    """Convolutions from their inputs and geometry instead of their outputs."""
    macs: dict[str, int] = {}

    def hook(name: str, layer: nn.Conv2d | nn.Linear, x: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            macs[name] = x.numel() * layer.out_features
            return
        padded = (side + 2 * border for side, border in zip(x.shape[2:], layer.padding, strict=True))
        sides = [(p - k) // s + 1 for p, k, s in zip(padded, layer.kernel_size, layer.stride, strict=True)]
        macs[name] = len(x) * sides[0] * sides[1] * layer.weight.numel()

    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_pre_hook(lambda m, args, name=name: hook(name, m, args[0]))
    lq = torch.zeros(2, 3, 32, 40)
    with torch.no_grad():
        model(lq)
    assert {work.name: work.macs for work in trace(model, lq) if work.quantizable} == macs


def test_torch_counts_the_same_operations(model: OneStepSR) -> None:
    for net, lq in (
        (model, torch.zeros(1, 3, 32, 32)),
        (blank(ARCHITECTURES["osediff"]()), torch.empty(1, 3, 512, 512, device="meta")),
    ):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(lq)
        assert counter.get_total_flops() == 2 * sum(work.macs for work in trace(net, lq))
