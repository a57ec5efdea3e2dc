"""Several ranges along the channels: each group, and each part of a joined input, as if it were alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor

from qartsr.config.parts import QuantizerConfig
from qartsr.quantizers import (
    QUANTIZERS,
    Grouped,
    OwnRange,
    Quantizer,
    Sliced,
    SlicedOwn,
    decode,
    encode,
    group_size,
    joined_stats,
    stats_of,
)
from tests.quantizers.test_laws import KINDS

ADAPTER: TypeAdapter[Any] = TypeAdapter(QuantizerConfig)
SHAPES = {"linear": (5, 12), "conv": (5, 12, 3, 3), "pointwise": (5, 12, 1, 1)}


def _build(kind: str, bits: int, shape: tuple[int, ...]) -> Quantizer:
    return QUANTIZERS.build(ADAPTER.validate_python(KINDS[kind]), bits=bits, shape=shape)


def _weight(shape: tuple[int, ...]) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return x * torch.linspace(0.1, 4, shape[1]).reshape(-1, *(1 for _ in shape[2:]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_every_group_is_quantized_as_if_alone(kind: str, shape: tuple[int, ...], bits: int) -> None:
    weight, size = _weight(shape), 4
    grouped = Grouped(_build(kind, bits, (15, 1)), 12, size)
    grouped.calibrate(weight)
    out, grid = grouped(weight), grouped.grid(weight)
    assert torch.equal(decode(encode(weight, grid), grid), out)
    compact = grouped.compact(weight)
    assert compact.scale.shape == (5, 3, *(1 for _ in shape[2:]))
    assert torch.equal(compact.scale.repeat_interleave(size, 1), grid.scale)
    for row, first in ((0, 0), (4, 8)):
        part = weight[row, first : first + size].reshape(1, -1)
        alone = _build(kind, bits, (1, 1))
        alone.calibrate(part)
        torch.testing.assert_close(alone(part).reshape(-1), out[row, first : first + size].reshape(-1))


@given(channels=st.integers(1, 400), most=st.integers(1, 128))
def test_groups_are_equal_and_not_larger_than_asked(channels: int, most: int) -> None:
    size = group_size(channels, most)
    assert channels % size == 0 and size <= most
    assert not any(channels % larger == 0 for larger in range(size + 1, min(most, channels) + 1))
    assert group_size(1280, 64) == 64 and group_size(96, 64) == 48 and group_size(4, 64) == 4


def test_smaller_groups_have_smaller_errors() -> None:
    weight, errors = _weight((6, 24)), []
    for size in (24, 8, 2):
        grouped = Grouped(_build("minmax", 4, (6 * 24 // size, 1)), 24, size)
        grouped.calibrate(weight)
        errors.append((grouped(weight) - weight).square().mean().item())
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("kind", ["lbq", "lsq", "lsq+"])
def test_gradients_of_groups_are_those_of_their_rows(kind: str) -> None:
    weight = _weight((5, 12))
    grouped, rows = Grouped(_build(kind, 3, (15, 1)), 12, 4), _build(kind, 3, (15, 1))
    grouped.calibrate(weight)
    rows.calibrate(weight.reshape(15, 4))
    grouped(weight).square().sum().backward()
    rows(weight.reshape(15, 4)).square().sum().backward()
    theirs: Any = rows
    for name, parameter in grouped.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs.get_parameter(name.removeprefix("inner.")).grad)


def _joined(tail: int) -> tuple[Tensor, list[Tensor]]:
    """An input of a convolution (two dimensions behind the channels) or of a linear layer, and its parts."""
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(2, 3, 5, 4, generator=generator), 30 * torch.rand(2, 5, 5, 4, generator=generator)]
    parts = [part.movedim(1, -1 - tail) for part in parts]
    return torch.cat(parts, -1 - tail), parts


@pytest.mark.parametrize("tail", [2, 0])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_both_parts_of_an_input_have_the_ranges_they_come_with(bits: int, tail: int) -> None:
    x, parts = _joined(tail)
    sliced, alone = SlicedOwn(bits, 3, 8, tail), OwnRange(bits)
    assert torch.equal(sliced(x), torch.cat([alone(part) for part in parts], -1 - tail))
    assert torch.equal(decode(encode(x, sliced.grid(x)), sliced.grid(x)), sliced(x))
    assert not torch.equal(sliced(x), alone(x))


@pytest.mark.parametrize("tail", [2, 0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_both_parts_of_a_joined_input_are_quantized_as_if_alone(kind: str, bits: int, tail: int) -> None:
    x, parts = _joined(tail)
    sliced = Sliced(_build(kind, bits, (2, 1)), 3, 8, tail)
    sliced.calibrate(joined_stats([stats_of(part, 1) for part in parts]))
    out, grid = sliced(x), sliced.grid(x)
    assert torch.equal(decode(encode(x, grid), grid), out) and sliced.compact(x).scale.shape == (2,)
    for part, found in zip(parts, out.split((3, 5), -1 - tail), strict=True):
        alone = _build(kind, bits, ())
        alone.calibrate(part)
        torch.testing.assert_close(alone(part), found)
    whole = _build("minmax", bits, ())
    whole.calibrate(x)
    first, of_whole = ((made - x).narrow(-1 - tail, 0, 3).square().mean() for made in (out, whole(x)))
    assert kind != "minmax" or first < of_whole


def test_joined_statistics_are_those_of_the_parts() -> None:
    parts = [stats_of(torch.arange(5.0) + 3, 1), stats_of(torch.arange(50.0) - 70, 1)]
    joined = joined_stats(parts)
    assert joined.groups == 2
    for number, part in enumerate(parts):
        for name in ("lower", "upper"):
            assert torch.equal(getattr(joined, name)[number : number + 1], getattr(part, name))
        for share in (0.0, 0.3, 1.0):
            assert torch.equal(joined.quantile(share)[number], part.quantile(share)[0])
        torch.testing.assert_close(joined.mean_magnitude()[number], part.mean_magnitude()[0])
        for ours, theirs in zip(joined.moments(), part.moments(), strict=True):
            torch.testing.assert_close(ours[number], theirs[0])
