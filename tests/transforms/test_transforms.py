"""weight(V) @ input(x) + bias(V) == V @ x, and the starting values."""

from __future__ import annotations

import math
import typing
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from qartsr.config.parts import ChannelScaleConfig, TransformConfig
from qartsr.transforms import FLOOR, TRANSFORMS, ChannelScale, Transform

ADAPTER: TypeAdapter[Any] = TypeAdapter(TransformConfig)
SHAPES = {"linear": (5, 7), "conv": (5, 7, 3, 3), "pointwise": (5, 7, 1, 1)}
KINDS = ("none", "channel_scale", "channel_affine", "channel_search")


def _made(kind: str, shape: tuple[int, ...]) -> Transform:
    transform = TRANSFORMS.build(ADAPTER.validate_python({"kind": kind}), shape=shape)
    module = typing.cast("torch.nn.Module", transform).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) * 3 + 0.1)
    return transform


def _pair(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    size = (2, 3, shape[1]) if len(shape) == 2 else (2, shape[1], *shape[2:])
    return (
        torch.randn(shape, generator=generator, dtype=torch.float64),
        torch.randn(size, generator=generator, dtype=torch.float64),
    )


def _product(weight: Tensor, x: Tensor) -> Tensor:
    """V @ x by hand: one output position for convolutions."""
    return x @ weight.T if weight.ndim == 2 else torch.einsum("oikl,bikl->bo", weight, x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_function_is_preserved(kind: str, shape: tuple[int, ...]) -> None:
    transform = _made(kind, shape)
    weight, x = _pair(shape)
    out = _product(transform.weight(weight), transform.input(x)) + transform.bias(weight)
    torch.testing.assert_close(out, _product(weight, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_factors_describe_it(kind: str, shape: tuple[int, ...]) -> None:
    transform = _made(kind, shape)
    weight, x = _pair(shape)
    phi, delta = (f.reshape(-1, *(1,) * (len(shape) - 2)) for f in transform.input_factors())
    assert phi.shape[0] == delta.shape[0] == shape[1] and (phi > 0).all()
    torch.testing.assert_close(transform.input(x), (x - delta) / phi)
    torch.testing.assert_close(transform.weight(weight), weight * phi)


@pytest.mark.parametrize("kind", ["channel_scale", "channel_affine"])
def test_start_is_passionsrs(kind: str) -> None:
    config = ADAPTER.validate_python({"kind": kind, "alpha": 0.3})
    transform = TRANSFORMS.build(config, shape=(2, 3, 1, 1))
    weight = torch.tensor([[0.5, -2.0, 0.0], [0.25, 1.0, 0.0]])[:, :, None, None]
    transform.calibrate(torch.tensor([4.0, 1.0, 0.0]), weight)
    phi, delta = transform.input_factors()
    expected = [(4.0 / 0.5) ** 0.3, (1.0 / 2.0) ** 0.3, 1.0]  # the last: both maxima at 1e-5
    assert phi.tolist() == pytest.approx(expected) and delta.tolist() == [0, 0, 0]


def test_candidates_of_the_search_are_svdquants() -> None:
    """max|x|^a / max|w|^b for a = 1/4 .. 3/4 with b = 0 and b = 1 - a, after the identity."""
    config = ADAPTER.validate_python({"kind": "channel_search", "steps": 4})
    transform = TRANSFORMS.build(config, shape=(2, 2, 1, 1))
    weight = torch.tensor([[0.5, -2.0], [0.25, 1.0]])[:, :, None, None]
    absmax = torch.tensor([4.0, 1.0])
    transform.calibrate(absmax, weight)
    assert transform.input_factors()[0].tolist() == [1, 1]
    found = transform.candidates(absmax, weight)
    expected = [[1.0, 1.0]]
    for a in (0.25, 0.5, 0.75):
        expected += [[4.0**a, 1.0], [4.0**a / 0.5 ** (1 - a), 1 / 2.0 ** (1 - a)]]
    torch.testing.assert_close(found, torch.tensor(expected))
    transform.adopt(found[4])
    assert torch.equal(transform.input_factors()[0], found[4])


@pytest.mark.parametrize("kind", ["none", "channel_scale", "channel_affine"])
def test_a_formula_leaves_nothing_to_search(kind: str) -> None:
    transform = TRANSFORMS.build(ADAPTER.validate_python({"kind": kind}), shape=(2, 3))
    assert transform.candidates(torch.ones(3), torch.ones(2, 3)).shape == (0, 3)


def test_alpha_zero_is_the_identity() -> None:
    transform = TRANSFORMS.build(ChannelScaleConfig(alpha=0.0), shape=(2, 3))
    transform.calibrate(torch.tensor([4.0, 1e-9, 100.0]), torch.randn(2, 3))
    assert transform.input_factors()[0].tolist() == [1, 1, 1]


def test_phi_stays_positive_and_rounds_to_16_bits_exactly() -> None:
    transform = ChannelScale(ChannelScaleConfig(), (2, 3))
    with torch.no_grad():
        transform.phi.copy_(torch.tensor([-1.0, 0.0, 0.7]).half().float())
    phi, _ = transform.input_factors()
    assert phi.tolist()[:2] == [FLOOR, FLOOR] and torch.equal(phi, phi.half().float())
    assert math.log2(FLOOR).is_integer()


def test_every_configuration_has_a_class() -> None:
    assert TRANSFORMS.types() == set(typing.get_args(typing.get_args(TransformConfig)[0]))
