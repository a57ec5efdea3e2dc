"""Casting around a component, and what a recording is looked up by; recording itself needs a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from qartsr.engines import triton
from qartsr.engines.triton import Cast, Replay


def test_the_component_sees_its_precision_and_the_caller_keeps_his() -> None:
    seen: list[Any] = []

    def forward(x: Tensor, steps: Tensor, context: Tensor) -> UNet2DConditionOutput:
        seen.extend((x, steps, context))
        return UNet2DConditionOutput(sample=x * 2)

    result = Cast(forward, torch.float16)(torch.ones(1, 2, 3, 3), torch.tensor([1]), context=torch.ones(1, 2, 4))
    assert [value.dtype for value in seen] == [torch.float16, torch.int64, torch.float16]
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert isinstance(result, UNet2DConditionOutput) and result.sample.dtype == torch.float32


class Recorded:
    """Stands in for a CUDA graph: the output is a buffer that a replay overwrites."""

    def __init__(self, forward: Any, inputs: list[Tensor], output: Tensor) -> None:
        self.graph, self.inputs, self.output, self._forward = self, inputs, output, forward

    def replay(self) -> None:
        self.output.copy_(self._forward(*self.inputs))


@pytest.fixture()
def captures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []

    def capture(self: Replay, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Recorded:
        inputs = [value.clone() for value in args]
        made.append(tuple(value.shape for value in inputs))
        return Recorded(self._forward, inputs, torch.empty_like(inputs[0]))

    monkeypatch.setattr(triton.Replay, "_capture", capture)
    return made


def test_one_recording_per_shape_and_outputs_of_ones_own(captures: list[Any]) -> None:
    replay = Replay(nn.Identity(), lambda x: x * 2)
    small, large = torch.ones(1, 2), torch.ones(3, 2)
    first, second, third = replay(small), replay(small * 5), replay(large)
    assert (first == 2).all() and (second == 10).all() and third.shape == (3, 2)
    assert captures == [((1, 2),), ((3, 2),)]


def test_hooked_norms_are_not_replayed(captures: list[Any]) -> None:
    norm = nn.GroupNorm(1, 2)
    replay, x = Replay(norm, norm), torch.randn(1, 2, 3)
    handle = norm.register_forward_hook(lambda *_: torch.zeros(1))
    assert float(replay(x)) == 0 and not captures
    handle.remove()
    replay(x)
    assert len(captures) == 1
