"""GPTQ: rounding in closed form, column by column, against the error of the layer's output (2210.17323)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.config.parts import GPTQConfig
from qartsr.errors import QartsrError
from qartsr.quantizers.family import Quantizer
from qartsr.quantizers.grid import Grid, nearest
from qartsr.quantizers.rounding import ROUNDINGS

_BLOCK = 128


@ROUNDINGS.register(GPTQConfig)
class GPTQ(nn.Module):
    """Minimises |X (W_hat - W)^T|^2 greedily: a column is rounded, its error is divided among the columns to come.

    Algorithm 1 with columns in the order of decreasing diagonal, damping of 1 % of the mean diagonal and blocks of 128
    columns, in float64. X are input patches in the basis of the codes. Deviations: an output channel for which rounding
    to nearest has the smaller error on X keeps that, so the error never grows; ranges are those of the calibrated
    quantizer, for groups too. The shift to the codes found is a constant; the weight below it may train.
    """

    shift: Tensor

    def __init__(self, config: GPTQConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.damping = config.damping
        self.register_buffer("shift", torch.zeros(shape))

    @torch.no_grad()
    def calibrate(self, weight: Tensor, quantizer: Quantizer, inputs: Tensor) -> None:
        """Find the codes. Raises QartsrError without ``inputs``."""
        if not len(inputs):
            do = "observe the model with the patches its plan asks for"
            raise QartsrError("GPTQ has no inputs of a layer", "method.layer.rounding", do)
        found = gptq(weight, quantizer.grid(weight), inputs, self.damping)
        self.shift.copy_(found - weight)

    def forward(self, weight: Tensor, quantizer: Quantizer) -> Tensor:
        """The shifted weight."""
        return weight + self.shift


def gptq(weight: Tensor, grid: Grid, inputs: Tensor, damping: float) -> Tensor:
    """The chosen grid values, shape of ``weight`` (O, ...), for ``inputs`` (N, columns of the weight)."""
    rows = weight.detach().flatten(1).double()
    scale, offset = (t.detach().expand_as(weight).flatten(1).double() for t in (grid.scale, grid.offset))
    exact = Grid(scale, offset, grid.levels)
    hessian = inputs.double().T @ inputs.double() / len(inputs)
    order = hessian.diagonal().argsort(descending=True, stable=True)
    chosen = torch.empty_like(rows)
    ordered = Grid(scale[:, order], offset[:, order], grid.levels)
    chosen[:, order] = _columns(rows[:, order], ordered, _factor(hessian[order][:, order], damping))
    plain = nearest(rows, exact).mul_(scale).add_(offset)
    better = _error(chosen - rows, hessian) < _error(plain - rows, hessian)
    return torch.where(better[:, None], chosen, plain).reshape(weight.shape).to(weight.dtype)


def _factor(hessian: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor of the inverse of the damped Hessian; inputs that never differ from 0 do not matter."""
    damped = hessian.clone()
    diagonal = damped.diagonal()
    mean = diagonal.mean()
    diagonal.add_(damping * torch.where(mean > 0, mean, 1.0))
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)


def _columns(rows: Tensor, grid: Grid, factor: Tensor) -> Tensor:
    """Round ``rows`` (O, D) column by column; ``factor`` (D, D) says how a column's error is shared by the later."""
    rows, chosen = rows.clone(), torch.empty_like(rows)
    for start in range(0, rows.shape[1], _BLOCK):
        end = min(start + _BLOCK, rows.shape[1])
        errors = torch.empty_like(rows[:, start:end])
        for column in range(start, end):
            one = Grid(grid.scale[:, column], grid.offset[:, column], grid.levels)
            chosen[:, column] = nearest(rows[:, column], one) * one.scale + one.offset
            error = (rows[:, column] - chosen[:, column]) / factor[column, column]
            rows[:, column:end] -= error[:, None] * factor[column, column:end]
            errors[:, column - start] = error
        rows[:, end:] -= errors @ factor[start:end, end:]
    return chosen


def _error(difference: Tensor, hessian: Tensor) -> Tensor:
    """(O,) mean squared error of the outputs."""
    return ((difference @ hessian) * difference).sum(1)
