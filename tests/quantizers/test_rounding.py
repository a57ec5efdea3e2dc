"""Rounding that is not to nearest: its gradient in closed form, and GPTQ against a dense elimination in numpy."""

from __future__ import annotations

import typing
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qartsr.config.parts import (
    GPTQConfig,
    IntegerConfig,
    LBQConfig,
    LearnedRoundingConfig,
    LSQConfig,
    MinMaxConfig,
    NearestConfig,
    RoundingConfig,
)
from qartsr.errors import QartsrError
from qartsr.quantizers import (
    GPTQ,
    LBQ,
    LSQ,
    QUANTIZERS,
    ROUNDINGS,
    Grid,
    Grouped,
    IntegerBase,
    LearnedRounding,
    Quantizer,
    encode,
    gptq,
    range_grid,
)

Array = np.ndarray[Any, np.dtype[np.float64]]


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _inputs(seed: int, count: int, columns: int) -> Tensor:
    """Correlated columns of different size, one of them always 0."""
    x = _draw(seed, count, columns) @ (
        torch.eye(columns, dtype=torch.float64) + 0.5 * _draw(seed + 1, columns, columns)
    )
    x = x * torch.linspace(0.2, 3, columns, dtype=torch.float64)
    x[:, columns // 2] = 0
    return x


def _channelwise(weight: Tensor, bits: int) -> Quantizer:
    shape = (weight.shape[0], *(1 for _ in weight.shape[1:]))
    quantizer = QUANTIZERS.build(MinMaxConfig(granularity="channel"), bits=bits, shape=shape)
    typing.cast("torch.nn.Module", quantizer).double()
    quantizer.calibrate(weight)
    return quantizer


def _eliminated(weight: Array, scale: Array, offset: Array, levels: int, x: Array, damping: float) -> Array:
    """Optimal brain quantization in a fixed order: after each column the inverse Hessian loses its row and column."""
    hessian = x.T @ x / len(x)
    order = np.argsort(-hessian.diagonal(), kind="stable")
    hessian = hessian + damping * hessian.diagonal().mean() * np.eye(len(hessian))
    inverse, rest = np.linalg.inv(hessian), weight.copy()
    out = np.zeros_like(weight)
    for column in order:
        code = np.rint(np.clip((rest[:, column] - offset[:, column]) / scale[:, column], 0, levels))
        out[:, column] = code * scale[:, column] + offset[:, column]
        error = (rest[:, column] - out[:, column]) / inverse[column, column]
        rest = rest - error[:, None] * inverse[column]
        inverse = inverse - np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return out


def _error(difference: Tensor, x: Tensor) -> Tensor:
    return (x @ difference.flatten(1).T).square().mean(0)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("columns", [7, 150])  # below and above one block
def test_gptq_is_the_dense_elimination(bits: int, columns: int) -> None:
    weight, x = _draw(0, 6, columns), _inputs(1, 400, columns)
    grid = _channelwise(weight, bits).grid(weight)
    found = gptq(weight, grid, x, 0.01)
    scale, offset = (t.expand_as(weight).numpy() for t in (grid.scale, grid.offset))
    expected = torch.from_numpy(_eliminated(weight.numpy(), scale, offset, grid.levels, x.numpy(), 0.01))
    nearest = (weight - grid.offset).div(grid.scale).clamp(0, grid.levels).round() * grid.scale + grid.offset
    better = _error(expected - weight, x) < _error(nearest - weight, x)
    assert better.sum() >= 3  # so that the comparison is about GPTQ
    torch.testing.assert_close(found, torch.where(better[:, None], expected, nearest), rtol=0, atol=1e-9)


@settings(max_examples=25)
@given(seed=st.integers(0, 999), bits=st.integers(2, 6), count=st.integers(1, 60), kernel=st.sampled_from([1, 2]))
def test_gptq_never_loses_to_nearest(seed: int, bits: int, count: int, kernel: int) -> None:
    """Also with fewer inputs than columns, and for every output channel."""
    weight, x = _draw(seed, 4, 6, kernel, kernel), _inputs(seed + 7, count, 6 * kernel**2)
    quantizer = _channelwise(weight, bits)
    rounding = GPTQ(GPTQConfig(), tuple(weight.shape)).double()
    rounding.calibrate(weight, quantizer, x)
    ours, nearest = quantizer(rounding(weight, quantizer)) - weight, quantizer(weight) - weight
    assert (_error(ours, x) <= _error(nearest, x) * (1 + 1e-9) + 1e-18).all()


def test_gptq_halves_the_error_of_correlated_inputs() -> None:
    weight, x = _draw(3, 32, 48), _draw(4, 600, 6) @ _draw(5, 6, 48) + 0.1 * _draw(6, 600, 48)
    quantizer = _channelwise(weight, 3)
    rounding = GPTQ(GPTQConfig(), (32, 48)).double()
    rounding.calibrate(weight, quantizer, x)
    ours, nearest = quantizer(rounding(weight, quantizer)) - weight, quantizer(weight) - weight
    assert _error(ours, x).sum() < 0.5 * _error(nearest, x).sum()


def test_gptq_knows_groups() -> None:
    weight, x = _draw(8, 4, 12), _inputs(9, 100, 12)
    grouped = Grouped(QUANTIZERS.build(MinMaxConfig(granularity="group"), bits=3, shape=(12, 1)), 12, 4).double()
    grouped.calibrate(weight)
    rounding = GPTQ(GPTQConfig(), (4, 12)).double()
    rounding.calibrate(weight, grouped, x)
    shifted = rounding(weight, grouped)
    torch.testing.assert_close(grouped(shifted), shifted, rtol=0, atol=1e-12)  # on the grid already
    assert (_error(shifted - weight, x) <= _error(grouped(weight) - weight, x) * (1 + 1e-9)).all()


def test_gptq_in_single_precision_keeps_its_codes() -> None:
    weight, x = _draw(0, 6, 20).float(), _inputs(1, 90, 20).float()
    grid = range_grid(weight.amin(1, keepdim=True), weight.amax(1, keepdim=True), 7)
    found = gptq(weight, grid, x, 0.01)
    shift = found - weight
    assert found.dtype == torch.float32 and torch.equal(encode(weight + shift, grid), encode(found, grid))
    torch.testing.assert_close((found - grid.offset) / grid.scale, encode(found, grid).float(), rtol=0, atol=1e-4)


def test_gptq_of_silent_inputs_is_nearest() -> None:
    weight = _draw(0, 3, 5)
    quantizer = _channelwise(weight, 3)
    rounding = GPTQ(GPTQConfig(), (3, 5)).double()
    rounding.calibrate(weight, quantizer, torch.zeros(9, 5, dtype=torch.float64))
    torch.testing.assert_close(quantizer(rounding(weight, quantizer)), quantizer(weight))


def test_gptq_without_inputs_says_so() -> None:
    weight = _draw(0, 3, 5)
    with pytest.raises(QartsrError, match="no inputs"):
        GPTQ(GPTQConfig(), (3, 5)).calibrate(weight, _channelwise(weight, 3), torch.empty(0, 5))


def test_learned_rounding_starts_at_nearest_and_reaches_both_neighbours() -> None:
    weight = _draw(0, 4, 30)
    quantizer = _channelwise(weight, 4)
    rounding = LearnedRounding(LearnedRoundingConfig(), (4, 30)).double()
    rounding.calibrate(weight, quantizer, weight)
    assert torch.equal(rounding(weight, quantizer), weight)
    grid = quantizer.grid(weight)
    place = ((weight - grid.offset) / grid.scale).clamp(0, 15)
    for offset, expected in (
        (0.499, place.ceil()),
        (-0.499, place.floor()),
        (9.0, place.ceil()),
        (-9.0, place.floor()),
    ):
        with torch.no_grad():
            rounding.offset.fill_(offset)
        codes = encode(rounding(weight, quantizer), grid)
        clear = (place - place.round()).abs() > 0.01
        assert torch.equal(codes[clear], expected[clear].long())


@pytest.mark.parametrize("bits", [2, 4])
def test_learned_rounding_has_signrounds_gradients(bits: int) -> None:
    """d/dv = s inside, 0 outside; d/dupper = (round(w / s + v) - w / s) / levels inside (zero point exact)."""
    levels = 2**bits - 1
    quantizer = LBQ(LBQConfig(), bits, ()).double()
    with torch.no_grad():
        quantizer.lower.fill_(-levels / 2 + 0.5)
        quantizer.upper.fill_(levels / 2 + 0.5)  # the step is 1
    weight, grad, v = _draw(1, 200), _draw(2, 200), torch.rand(200, dtype=torch.float64) - 0.5
    rounding = LearnedRounding(LearnedRoundingConfig(), (200,)).double()
    with torch.no_grad():
        rounding.offset.copy_(v)
    (quantizer(rounding(weight, quantizer)) * grad).sum().backward()
    place = weight + v - quantizer.lower.detach()
    inside = (place >= 0) & (place <= levels)
    torch.testing.assert_close(rounding.offset.grad, torch.where(inside, grad, 0.0))
    slope = torch.where(inside, (weight + v).round() - weight, (place > levels) * float(levels))
    assert quantizer.upper.grad is not None
    torch.testing.assert_close(quantizer.upper.grad, (grad * slope / levels).sum())


def test_learning_finds_better_codes_than_nearest() -> None:
    weight, x = _draw(0, 4, 16), _draw(1, 200, 4) @ _draw(2, 4, 16)
    quantizer = _channelwise(weight, 3)
    rounding = LearnedRounding(LearnedRoundingConfig(), (4, 16)).double()
    start = _error(quantizer(weight) - weight, x).sum()
    optimizer, best = torch.optim.Adam(rounding.parameters(), 0.02), start
    for _ in range(80):
        optimizer.zero_grad()
        loss = _error(quantizer(rounding(weight, quantizer)) - weight, x).sum()
        loss.backward()
        optimizer.step()
        best = torch.minimum(best, loss.detach())
    assert best < 0.7 * start


def test_every_configuration_has_a_class() -> None:
    assert ROUNDINGS.types() == set(typing.get_args(typing.get_args(RoundingConfig)[0]))


def test_nearest_changes_nothing() -> None:
    weight = _draw(0, 3, 5)
    assert ROUNDINGS.build(NearestConfig(), shape=(3, 5))(weight, _channelwise(weight, 3)) is weight
    assert isinstance(_channelwise(weight, 3).grid(weight), Grid)


def _integer(adapter: Tensor) -> tuple[LSQ, IntegerBase, Tensor]:
    weight = torch.randn(4, 30, generator=torch.Generator().manual_seed(3)).double()
    config = LSQConfig(granularity="channel", offset=True, init="minmax")
    quantizer, rounding = LSQ(config, 3, (4, 1)).double(), IntegerBase(IntegerConfig(), (4, 30)).double()
    quantizer.calibrate(weight)
    rounding.calibrate(weight, quantizer, torch.empty(0))
    return quantizer, rounding, weight + adapter


def test_an_integer_base_needs_half_a_step_to_change_a_code() -> None:
    """Whatever the weight was: of the floating-point weights, some lie next to a tie and change at once."""
    quantizer, rounding, weight = _integer(torch.zeros(()).double())
    step, start = quantizer.step.detach(), encode(weight, quantizer.grid(weight))
    for share, moves in ((0.0, False), (0.49, False), (-0.49, False), (0.51, True), (-0.51, True)):
        moved = encode(rounding(weight + share * step, quantizer), quantizer.grid(weight))
        free = (start + (1 if share > 0 else -1)).clamp(0, 7)  # end codes have nowhere to go
        assert torch.equal(moved, free if moves else start)
    assert not torch.equal(encode(weight + 0.49 * step, quantizer.grid(weight)), start)


def test_an_integer_base_moves_with_the_step() -> None:
    """Its codes stay while the step trains; the gradient of the step goes through base and quantizer."""
    quantizer, rounding, weight = _integer(
        0.1 * torch.randn(4, 30, generator=torch.Generator().manual_seed(4)).double()
    )
    start = encode(rounding(weight, quantizer), quantizer.grid(weight))
    with torch.no_grad():
        quantizer.step.mul_(1.7)
    clean = encode(rounding(rounding.start, quantizer), quantizer.grid(weight))
    assert torch.equal(clean, rounding.codes) and not torch.equal(start, rounding.codes)
    g = torch.randn(4, 30, generator=torch.Generator().manual_seed(5)).double()
    quantizer(rounding(weight, quantizer)).backward(g)
    step, zero = quantizer.step.detach().clone().requires_grad_(True), quantizer.offset.zero
    base = step * (rounding.codes - zero)
    position = (base + (weight - rounding.start)) / step + zero
    held = torch.where((position >= 0) & (position <= 7), position, position.detach().clamp(0, 7))
    out = step * (held + (held.round() - held).detach() - zero)
    out.backward(g)
    factor = 1 / (7 * 30) ** 0.5  # LSQ's, for n weights a step and 7 codes above the lowest
    torch.testing.assert_close(quantizer.step.grad, step.grad * factor)
