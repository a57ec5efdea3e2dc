"""Residual plus matrix is the weight; two thin operations equal the matrix; the adapter starts at nothing."""

from __future__ import annotations

import math
import typing

import pytest
import torch
from torch import Tensor

from qartsr.branches import BRANCHES, SVD, LoRA, NoBranch, family
from qartsr.config.parts import AdapterConfig, LoRAConfig, NoBranchConfig, SkipConfig, SVDConfig
from qartsr.layer import Conv2dOp, LinearOp

SHAPES = {"linear": (6, 9), "conv": (6, 4, 3, 3), "pointwise": (6, 9, 1, 1), "few outputs": (2, 9, 3, 3)}


def _weight(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _ones(shape: tuple[int, ...]) -> Tensor:
    return torch.ones(shape[1], *(1 for _ in shape[2:]), dtype=torch.float64)


def _svd(rank: int, shape: tuple[int, ...], basis: str = "weight", phi: Tensor | None = None) -> SVD:
    branch = SVD(SVDConfig.model_validate({"rank": rank, "basis": basis}), shape, "layer").double()
    branch.calibrate(_weight(shape), _ones(shape) if phi is None else phi)
    return branch


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("rank", [1, 2, 1000])
def test_svd_is_the_best_matrix_of_its_rank(shape: tuple[int, ...], rank: int) -> None:
    """Eckart and Young: the squared residual is the tail of the squared singular values."""
    branch, weight = _svd(rank, shape), _weight(shape)
    values = torch.linalg.svdvals(weight.flatten(1))
    used = min(rank, len(values))
    assert branch.left.shape[1] == used == torch.linalg.matrix_rank(branch.matrix().detach().flatten(1))
    residual = (weight - branch.matrix()).square().sum()
    torch.testing.assert_close(residual, values[used:].square().sum(), atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (7, 7)])
def test_large_matrices_have_the_same_factors(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """All ranks, with the last singular values 0; a singular vector's sign is free, so products are compared."""
    matrix = _weight((shape[0], 4)) @ _weight((4, shape[1]))
    whole = torch.linalg.svd(matrix, full_matrices=False)
    monkeypatch.setattr(family, "_WHOLE", 0)
    for rank in range(min(shape) + 1):
        left, right = family.truncated_svd(matrix, rank)
        best = whole.U[:, :rank] @ (whole.S[:rank, None] * whole.Vh[:rank])
        torch.testing.assert_close(left @ right, best, atol=1e-10, rtol=0)
        torch.testing.assert_close(left.mT @ left, right @ right.mT, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("last", "apart"), [(1e-3, 1e-12), (1e-12, 1e-7)])
def test_large_matrices_lose_what_their_squares_cannot_hold(
    last: float, apart: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(40, 40, generator=draw, dtype=torch.float64)).Q for _ in range(2))
    values = torch.logspace(0, math.log10(last), 40, dtype=torch.float64)
    monkeypatch.setattr(family, "_WHOLE", 0)
    for rank in (1, 20, 40):
        left, right = family.truncated_svd(u * values @ v.mT, rank)
        best = u[:, :rank] * values[:rank] @ v[:, :rank].mT
        torch.testing.assert_close(left @ right, best, atol=apart, rtol=0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_svd_factors_are_balanced(shape: tuple[int, ...]) -> None:
    left, right = (factor.detach() for factor in _svd(2, shape).factors())
    torch.testing.assert_close(left.T @ left, right.flatten(1) @ right.flatten(1).T, atol=1e-10, rtol=0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_scaled_basis_decomposes_the_scaled_weight(shape: tuple[int, ...]) -> None:
    phi = _ones(shape) * torch.linspace(0.1, 5, shape[1], dtype=torch.float64).reshape(_ones(shape).shape)
    branch, weight = _svd(2, shape, "scaled", phi), _weight(shape)
    values = torch.linalg.svdvals((weight * phi).flatten(1))
    residual = ((weight - branch.matrix()) * phi).square().sum()
    torch.testing.assert_close(residual, values[2:].square().sum(), atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("kind", ["linear", "conv", "strided"])
def test_two_thin_operations_equal_the_matrix(kind: str) -> None:
    shape = (6, 9) if kind == "linear" else (6, 4, 3, 3)
    op = LinearOp() if kind == "linear" else Conv2dOp((2, 1) if kind == "strided" else (1, 1), (1, 1), (1, 1))
    x = torch.randn((2, 5, 9) if kind == "linear" else (2, 4, 8, 7), dtype=torch.float64)
    branch = _svd(3, shape)
    torch.testing.assert_close(branch.apply(op.pad(x), op), op(op.pad(x), branch.matrix()), atol=1e-10, rtol=0)


def test_lora_starts_at_zero_and_the_same_in_every_run() -> None:
    made = []
    for name in ("a", "a", "b"):
        branch = LoRA(LoRAConfig(rank=3), (6, 4, 3, 3), name)
        torch.manual_seed(len(made))
        branch.calibrate(_weight((6, 4, 3, 3)), _ones((6, 4, 3, 3)))
        made.append(branch)
    first, again, other = (branch.right.detach() for branch in made)
    assert torch.equal(first, again) and not torch.equal(first, other) and first.abs().max() <= 1 / 6
    assert not made[0].matrix().any() and made[0].matrix().shape == (6, 4, 3, 3)


def test_lora_learns_although_it_starts_at_zero() -> None:
    branch = LoRA(LoRAConfig(rank=3), (6, 9), "a")
    branch.calibrate(_weight((6, 9)), _ones((6, 9)))
    branch.matrix().square().sum().backward()
    (branch.matrix() - 1).square().sum().backward()
    assert branch.left.grad is not None and branch.left.grad.abs().sum() > 0


def test_rank_is_clipped() -> None:
    assert LoRA(LoRAConfig(rank=99), (6, 4, 3, 3), "a").left.shape == (6, 6)
    assert LoRA(LoRAConfig(rank=99), (60, 4), "a").left.shape == (60, 4)


def test_no_branch_is_zero() -> None:
    branch = NoBranch(NoBranchConfig(), (6, 9), "a")
    weight = _weight((6, 9))
    assert torch.equal(weight - branch.matrix(), weight) and branch.factors() == ()
    assert branch.apply(weight, LinearOp()) == 0


def test_every_configuration_has_a_class() -> None:
    unions = [typing.get_args(typing.get_args(family)[0]) for family in (SkipConfig, AdapterConfig)]
    assert BRANCHES.types() == {kind for union in unions for kind in union}
