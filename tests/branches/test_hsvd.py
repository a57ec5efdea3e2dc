"""Low rank plus blocks of rank 1: the budget is kept, blocks are the best, grouped operations are the matrix."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qartsr.branches import HSVD, SVD, branch_layout, layout, searched_layout
from qartsr.config.parts import HSVDConfig, NoBranchConfig, SVDConfig
from qartsr.layer import Conv2dOp, LinearOp

SHAPES = {"linear": (12, 18), "conv": (12, 6, 3, 3), "pointwise": (12, 18, 1, 1), "few outputs": (2, 9, 3, 3)}


def _weight(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _phi(shape: tuple[int, ...], spread: float = 0.0) -> Tensor:
    values = torch.linspace(1 - spread, 1 + 4 * spread, shape[1], dtype=torch.float64)
    return values.reshape(-1, *(1 for _ in shape[2:]))


def _hsvd(shape: tuple[int, ...], phi: Tensor | None = None, **settings: Any) -> HSVD:
    branch = HSVD(HSVDConfig.model_validate(settings), shape, "layer").double()
    branch.calibrate(_weight(shape), _phi(shape) if phi is None else phi)
    return branch


def _size(branch: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in branch.parameters())


@given(
    outputs=st.integers(1, 64),
    channels=st.integers(1, 64),
    kernel=st.sampled_from([0, 1, 3]),
    rank=st.integers(1, 40),
    local=st.floats(0, 1),
)
def test_the_budget_is_that_of_the_plain_svd(outputs: int, channels: int, kernel: int, rank: int, local: float) -> None:
    shape = (outputs, channels) if kernel == 0 else (outputs, channels, kernel, kernel)
    config = HSVDConfig(rank=rank, local=local)
    found = layout(config, shape)
    budget = _size(SVD(SVDConfig(rank=rank), shape, "a"))
    assert _size(HSVD(config, shape, "a")) <= budget
    assert (found.rows == 0) == (found.columns == 0) and branch_layout(config, shape) == found
    if found.rows:
        assert outputs % found.rows == 0 and channels % found.columns == 0
        inputs, spent = math.prod(shape[1:]), branch_layout(SVDConfig(rank=rank), shape).rank - found.rank
        for rows in range(found.rows + 1, outputs + 1):  # no more blocks in either direction
            assert outputs % rows or rows * inputs + outputs * found.columns > spent * (outputs + inputs)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("basis", ["weight", "scaled"])
def test_every_block_of_the_rest_has_its_best_rank_one(shape: tuple[int, ...], basis: str) -> None:
    """Eckart and Young block by block: what remains is the tail of each block's singular values."""
    phi = _phi(shape, 0.8 if basis == "scaled" else 0.0)
    branch, scaled = _hsvd(shape, phi, rank=6, basis=basis), _weight(shape) * phi
    rank, rows, columns = layout(HSVDConfig(rank=6), shape)
    u, s, vh = torch.linalg.svd(scaled.flatten(1), full_matrices=False)
    rest = (scaled.flatten(1) - u[:, :rank] @ torch.diag(s[:rank]) @ vh[:rank]).reshape(shape)
    left = 0.0
    for part in rest.chunk(max(rows, 1), 0):
        for block in part.chunk(max(columns, 1), 1):
            values = torch.linalg.svdvals(block.flatten(1))
            left += values[1 if rows else 0 :].square().sum().item()
    residual = ((_weight(shape) - branch.matrix().detach()) * phi).square().sum()
    assert residual.item() == pytest.approx(left, rel=1e-8, abs=1e-10)


def test_without_blocks_it_is_the_svd_and_with_one_block_too() -> None:
    shape = SHAPES["conv"]
    plain = SVD(SVDConfig(rank=3), shape, "a").double()
    plain.calibrate(_weight(shape), _phi(shape))
    for local in (0.0, 0.3):  # 0.3 of rank 3 is one rank, and one block is its only layout
        found = layout(HSVDConfig(rank=3, local=local), shape)
        branch = _hsvd(shape, rank=3, local=local)
        if found.rows <= 1 and found.columns <= 1:
            torch.testing.assert_close(branch.matrix(), plain.matrix())
        else:
            assert local


@pytest.mark.parametrize("kind", ["linear", "conv", "strided"])
@pytest.mark.parametrize("local", [0.0, 0.5, 1.0])
def test_grouped_operations_equal_the_matrix(kind: str, local: float) -> None:
    shape = SHAPES["linear" if kind == "linear" else "conv"]
    op = LinearOp() if kind == "linear" else Conv2dOp((2, 1) if kind == "strided" else (1, 1), (1, 1), (1, 1))
    x = torch.randn((2, 5, 18) if kind == "linear" else (2, 6, 8, 7), dtype=torch.float64)
    branch = _hsvd(shape, rank=6, local=local)
    torch.testing.assert_close(branch.apply(op.pad(x), op), op(op.pad(x), branch.matrix()), atol=1e-10, rtol=0)
    assert len(branch.factors()) == 4


def test_blocks_beat_the_plain_svd_where_the_weight_has_local_structure() -> None:
    generator = torch.Generator().manual_seed(1)
    blocks = torch.einsum("pqi,pqj->piqj", *(torch.randn(4, 4, 8, generator=generator).double() for _ in range(2)))
    weight = blocks.reshape(32, 32)
    residuals = []
    for branch in (SVD(SVDConfig(rank=8), (32, 32), "a"), HSVD(HSVDConfig(rank=8, local=0.5), (32, 32), "a")):
        branch.double().calibrate(weight, torch.ones(32, dtype=torch.float64))
        residuals.append((weight - branch.matrix()).square().sum().item())
    assert residuals[1] < residuals[0]


@pytest.mark.parametrize("shape", [SHAPES["linear"], SHAPES["conv"]])
def test_the_search_finds_the_least_rest_within_the_budget(shape: tuple[int, ...]) -> None:
    """Against what the branch leaves of the weight for every layout that the shares allow."""
    weight, rank = _weight(shape), 6
    found = searched_layout(HSVDConfig(rank=rank), weight)

    def left(rank: int, rows: int, columns: int) -> float:
        branch = HSVD(HSVDConfig(rank=6, layout=(rank, rows, columns)), shape, "a").double()
        branch.calibrate(weight, _phi(shape))
        return float((weight - branch.matrix()).square().sum().detach())

    inputs = math.prod(shape[1:])
    errors = [
        left(rank - spent, rows, columns)
        for spent in (2, 3, 4, 6)
        for rows in (1, 2, 3, 4, 6, 12)
        for columns in (1, 2, 3, 6, 9, 18)
        if shape[1] % columns == 0 and rows * inputs + shape[0] * columns <= spent * (shape[0] + inputs)
    ]
    assert left(*found) == pytest.approx(min(*errors, left(rank, 0, 0)), rel=1e-9)
    config = HSVDConfig(rank=rank, layout=tuple(found))
    assert layout(config, shape) == found and _size(HSVD(config, shape, "a")) <= rank * (shape[0] + inputs)


def test_all_factors_learn() -> None:
    branch = _hsvd(SHAPES["conv"], rank=6)
    branch.matrix().square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in branch.parameters())


def test_other_branches_have_no_blocks() -> None:
    assert branch_layout(NoBranchConfig(), (4, 5)) == (0, 0, 0) and branch_layout(SVDConfig(rank=9), (4, 5)) == (
        4,
        0,
        0,
    )
