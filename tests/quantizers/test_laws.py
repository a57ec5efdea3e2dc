"""What every quantizer promises."""

from __future__ import annotations

import itertools
import typing
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor

from qartsr.config.parts import LBQConfig, QuantizerConfig
from qartsr.quantizers import LBQ, QUANTIZERS, Grid, OwnRange, Quantizer, decode, encode, range_grid, stats_of
from qartsr.quantizers.family import QUANTIZERS as FAMILY

ADAPTER: TypeAdapter[Any] = TypeAdapter(QuantizerConfig)
KINDS: dict[str, dict[str, Any]] = {
    "minmax": {"kind": "minmax"},
    "percentile": {"kind": "percentile", "percentile": 99.0},
    "mse": {"kind": "mse"},
    "minmax symmetric": {"kind": "minmax", "symmetric": True},
    "percentile symmetric": {"kind": "percentile", "percentile": 99.0, "symmetric": True},
    "mse symmetric": {"kind": "mse", "symmetric": True},
    "lsq": {"kind": "lsq"},
    "lsq sigma": {"kind": "lsq", "init": "sigma"},
    "lsq minmax": {"kind": "lsq", "init": "minmax"},
    "lsq+": {"kind": "lsq", "offset": True},
    "lsq whole": {"kind": "lsq", "offset": True, "init": "minmax"},
    "gaussian": {"kind": "gaussian"},
    "lbq": {"kind": "lbq"},
    "lbq mse": {"kind": "lbq", "init": "mse"},
}


def _build(kind: str, bits: int, shape: tuple[int, ...]) -> Quantizer:
    return QUANTIZERS.build(ADAPTER.validate_python(KINDS[kind]), bits=bits, shape=shape)


def _tensor(seed: int, shape: tuple[int, ...] = (6, 40), skew: float = 0.0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(x < 0, x * (1 - skew), x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (6, 1)])
@settings(max_examples=15)
@given(bits=st.integers(2, 8), seed=st.integers(0, 999), scale=st.floats(1e-3, 1e3), shift=st.floats(-3, 3))
def test_decoding_the_code_is_the_forward(
    kind: str, shape: tuple[int, ...], bits: int, seed: int, scale: float, shift: float
) -> None:
    x = (_tensor(seed) + shift) * scale
    quantizer = _build(kind, bits, shape)
    quantizer.calibrate(x)
    wide = x * 1.5
    codes = encode(wide, quantizer.grid(wide))
    assert codes.dtype == torch.int64 and codes.min() >= 0 and codes.max() <= 2**bits - 1
    assert torch.equal(decode(codes, quantizer.grid(wide)), quantizer(wide))
    assert torch.equal(encode(quantizer(wide), quantizer.grid(wide)), codes)  # on the grid already


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10)
@given(seed=st.integers(0, 999), skew=st.floats(0, 1))
def test_error_falls_with_bits(kind: str, seed: int, skew: float) -> None:
    x = _tensor(seed, (2000,), skew)
    errors = []
    for bits in (2, 4, 6, 8):
        quantizer = _build(kind, bits, ())
        quantizer.calibrate(x)
        errors.append((quantizer(x) - x).square().mean().item())
    cut = 1.05 if kind.startswith("percentile") else 1.0  # what lies beyond the percentiles stays lost
    assert all(b < a * cut for a, b in itertools.pairwise(errors)), errors


@settings(max_examples=50)
@given(lower=st.floats(-10, 0), width=st.floats(1e-3, 20), bits=st.integers(2, 8))
def test_zero_is_exactly_on_the_grid(lower: float, width: float, bits: int) -> None:
    low, high = torch.tensor(lower), torch.tensor(max(0.0, lower + width))
    if high - low < 1e-3:
        return
    grid = range_grid(low, high, 2**bits - 1)
    zero = torch.zeros(3)
    assert torch.equal(decode(encode(zero, grid), grid), zero)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(), (6, 1)])
@settings(max_examples=15)
@given(seed=st.integers(0, 999), skew=st.floats(0, 1), tail=st.floats(1, 3))
def test_least_squares_never_loses_to_minmax(
    bits: int, shape: tuple[int, ...], seed: int, skew: float, tail: float
) -> None:
    x = _tensor(seed, (6, 200), skew)
    x = x.sign() * x.abs() ** tail
    errors = {}
    for init in ("minmax", "mse"):
        quantizer = LBQ(LBQConfig.model_validate({"init": init}), bits, shape)
        quantizer.calibrate(x)
        errors[init] = (quantizer(x) - x).square().reshape(6 if shape else 1, -1).sum(1)
    assert (errors["mse"] <= errors["minmax"] * (1 + 1e-5)).all()


def test_least_squares_is_close_to_the_best_range_at_two_bits() -> None:
    """Against an exhaustive search over both ends for half-normal data, where min and max waste most levels."""
    x = _tensor(0, (3000,)).abs() ** 1.5
    quantizer = LBQ(LBQConfig(init="mse"), 2, ())
    quantizer.calibrate(x)
    found = (quantizer(x) - x).square().sum()
    best = min(
        (decode(encode(x, grid), grid) - x).square().sum().item()
        for low in torch.linspace(0, 1, 15)
        for high in torch.linspace(1, x.max().item(), 120)
        for grid in [range_grid(low, high, 3)]
    )
    assert found <= best * 1.05


def test_minmax_reaches_both_ends_up_to_half_a_step() -> None:
    x = _tensor(1, (500,), 0.3)
    quantizer = _build("minmax", 4, ())
    quantizer.calibrate(x)
    step = quantizer.grid(x).scale
    assert (quantizer(x) - x).abs().max() <= step * 1.0001


def test_percentile_is_numpys() -> None:
    x = _tensor(2, (5000,))
    quantizer = _build("percentile", 8, ())
    quantizer.calibrate(x)
    expected = torch.quantile(x, torch.tensor([0.01, 0.99]))
    found = torch.stack([quantizer.get_buffer("lower"), quantizer.get_buffer("upper")])  # type: ignore[attr-defined]
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 0.7, -3.0, 1e-7, 1e4])
def test_a_constant_is_reproduced(kind: str, value: float) -> None:
    x = torch.full((3, 8), value)
    for shape in ((), (3, 1)):
        quantizer = _build(kind, 4, shape)
        quantizer.calibrate(x)
        out = quantizer(x)
        assert out.isfinite().all()
        if not kind.startswith(("lsq", "gaussian")):
            torch.testing.assert_close(out, x, rtol=1e-4, atol=1e-5)


def test_a_range_turned_inside_out_stays_finite_and_comes_back() -> None:
    """Training may push upper below lower: no NaN, and the gradient still pulls them apart."""
    quantizer = LBQ(LBQConfig(), 4, ())
    with torch.no_grad():
        quantizer.lower.fill_(0.2)
        quantizer.upper.fill_(-0.1)
    x = _tensor(3, (2000,))
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (quantizer(x) - x).square().mean()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in quantizer.parameters())
        optimizer.step()
    assert quantizer.upper > quantizer.lower and loss < 0.1


def test_no_quantizer_has_no_grid() -> None:
    quantizer = QUANTIZERS.build(ADAPTER.validate_python({"kind": "none"}), bits=4, shape=())
    x = _tensor(0)
    assert quantizer(x) is x
    with pytest.raises(ValueError, match="no grid"):
        quantizer.grid(x)


@pytest.mark.parametrize("kind", ["minmax symmetric", "mse symmetric", "percentile symmetric"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_symmetric_grids_are_signed_integers_times_a_step(kind: str, bits: int) -> None:
    x = _tensor(4, (6, 300), 0.5)
    quantizer = _build(kind, bits, (6, 1))
    quantizer.calibrate(x)
    grid = quantizer.grid(x)
    assert torch.equal(grid.offset, -(2 ** (bits - 1)) * grid.scale)
    if kind == "minmax symmetric":
        torch.testing.assert_close(grid.scale[:, 0] * (2 ** (bits - 1) - 1), x.abs().amax(1))


def test_least_error_static_and_learned_start_alike() -> None:
    x = _tensor(5, (6, 300), 0.7)
    found = []
    for kind in ("mse", "lbq mse"):
        quantizer = _build(kind, 3, (6, 1))
        quantizer.calibrate(x)
        found.append(quantizer(x).detach())
    assert torch.equal(*found)


def test_sigma_start_is_lsq_pluss() -> None:
    """LSQ+, section 4.2: max(|mu - 3 sigma|, |mu + 3 sigma|) / 2**(b-1)."""
    x = _tensor(6, (2000,)) + 0.4
    quantizer = _build("lsq sigma", 4, ())
    quantizer.calibrate(x)
    mean, deviation = x.mean().item(), x.std(correction=0).item()
    expected = max(abs(mean - 3 * deviation), abs(mean + 3 * deviation)) / 8
    assert quantizer.grid(x).scale.item() == pytest.approx(expected, rel=1e-5)


def test_dynamic_ranges_follow_the_input() -> None:
    quantizer = QUANTIZERS.build(ADAPTER.validate_python({"kind": "dynamic"}), bits=4, shape=())
    for x in (_tensor(0, (2, 30)), _tensor(1, (2, 30)) * 50 + 7):
        quantizer.calibrate(stats_of(x * 9, 1))  # what calibration saw does not matter
        grid = quantizer.grid(x)
        assert torch.equal(decode(encode(x, grid), grid), quantizer(x))
        assert (quantizer(x) - x).abs().max() <= grid.scale * 1.0001
    with pytest.raises(ValueError, match="one for the whole"):
        QUANTIZERS.build(ADAPTER.validate_python({"kind": "dynamic"}), bits=4, shape=(3, 1))


def test_own_range_follows_the_tensor() -> None:
    quantizer = OwnRange(8)
    for x in (_tensor(0, (30,)), _tensor(1, (30,)) * 50 + 7, torch.zeros(5)):
        assert (quantizer(x) - x).abs().max() <= quantizer.grid(x).scale * 1.0001


def test_sixteen_bits_work() -> None:
    quantizer = _build("lbq", 16, ())
    x = _tensor(0)
    quantizer.calibrate(x)
    assert (quantizer(x) - x).abs().max() < 1e-3


def test_groups_must_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        _build("lbq", 4, (6, 1)).calibrate(stats_of(_tensor(0), 1))
    with pytest.raises(ValueError, match="do not fit"):
        _build("lbq", 4, (5, 1)).calibrate(_tensor(0))


def test_every_configuration_has_a_class() -> None:
    union = typing.get_args(typing.get_args(QuantizerConfig)[0])
    assert FAMILY.types() == set(union)


def test_codes_of_a_known_grid() -> None:
    grid = Grid(torch.tensor(0.5), torch.tensor(-1.0), 3)
    assert encode(torch.tensor([-9.0, -1.0, -0.6, 0.1, 0.5, 9.0]), grid).tolist() == [0, 0, 1, 2, 3, 3]
    assert decode(torch.tensor([0, 1, 2, 3]), grid).tolist() == [-1.0, -0.5, 0.0, 0.5]
