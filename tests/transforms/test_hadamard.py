"""Hadamard matrices of every order there is, and the rotation they make of channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qartsr.artifact.hadamard import hadamard
from qartsr.config.parts import HadamardConfig
from qartsr.transforms import Hadamard, block_order, rotated


@pytest.mark.parametrize("order", [1, 2, 4, 8, 12, 20, 24, 28, 36, 40, 44, 48, 60, 76, 96, 112, 320, 640, 1536])
def test_rows_are_signs_and_orthogonal(order: int) -> None:
    matrix = hadamard(order)
    assert set(np.unique(matrix)) <= {-1.0, 1.0}
    assert np.array_equal(matrix @ matrix.T, order * np.eye(order))


@pytest.mark.parametrize(
    ("channels", "order"),
    [(1536, 1536), (320, 320), (96, 96), (112, 112), (3, 1), (6, 2), (22, 2), (184, 8), (1280, 1280), (48, 48)],
)
def test_blocks_are_the_largest_that_divide(channels: int, order: int) -> None:
    """Orders above 2 are multiples of 4; of 92 and 184 neither of Paley's constructions has one."""
    assert block_order(channels, 6144) == order
    assert block_order(320, 64) == block_order(128, 100) == 64


def test_what_there_is_no_matrix_for_is_refused() -> None:
    with pytest.raises(ValueError, match="order 6"):
        hadamard(6)


@pytest.mark.parametrize("channels", [1, 6, 12, 96, 112, 136])
@pytest.mark.parametrize("dim", [-1, 1])
def test_two_small_factors_are_the_matrix_and_undo_themselves(channels: int, dim: int) -> None:
    x = torch.randn(3, channels, 4, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    order = block_order(channels, 16384)
    small = torch.from_numpy(hadamard(order)) / order**0.5
    whole = torch.block_diag(*[small] * (channels // order))
    found = rotated(x, order, dim)
    expected = (x.movedim(dim, -1) @ whole).movedim(-1, dim)
    same = rotated(torch.eye(channels, dtype=torch.float64), order)  # x H up to the order within H
    assert torch.allclose(same @ same.T, torch.eye(channels, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(same.abs(), whole.abs(), atol=1e-12)
    torch.testing.assert_close(found.movedim(dim, -1), x.movedim(dim, -1) @ same, atol=1e-12, rtol=0)
    torch.testing.assert_close(rotated(found, order, dim, back=True), x, atol=1e-12, rtol=0)
    assert expected.shape == found.shape


@pytest.mark.parametrize("shape", [(5, 24), (5, 24, 3, 3), (5, 7, 1, 1)])
def test_the_function_is_preserved_and_one_large_channel_is_spread(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    transform = Hadamard(HadamardConfig(), shape)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = torch.randn((2, 9, shape[1]) if len(shape) == 2 else (2, shape[1], *shape[2:]), generator=generator).double()
    x.select(1 - len(shape), 3).mul_(100)  # an outlier
    turned = transform.input(x)
    product = (lambda w, v: v @ w.T) if len(shape) == 2 else (lambda w, v: torch.einsum("oikl,bikl->bo", w, v))
    torch.testing.assert_close(product(transform.weight(weight), turned), product(weight, x), rtol=0, atol=1e-9)
    assert not transform.bias(weight).any()
    if transform.order > 1:
        assert turned.abs().max() < 0.6 * x.abs().max()


@pytest.mark.parametrize(("channels", "order"), [(96, 48), (112, 56), (24, 12), (7, 1), (2, 1)])
def test_halves_are_rotated_apart(channels: int, order: int) -> None:
    transform = Hadamard(HadamardConfig(halves=True), (5, channels, 1, 1))
    assert transform.order == order
    x = torch.randn(2, channels, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned, half = transform.input(x), channels // 2
    if channels % 2 == 0:
        assert torch.allclose(turned[:, :half], rotated(x[:, :half], order, 1))
        assert torch.allclose(turned[:, half:], rotated(x[:, half:], order, 1))
