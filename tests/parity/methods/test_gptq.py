"""GPTQ against its authors' code, columns in the order of the Hessian's diagonal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.layer import op_of
from qartsr.quantizers import Grid, gptq
from tests.parity.methods.fixtures import Case, each, load
from tests.parity.methods.rules import close


def _inputs(case: Case) -> Tensor:
    """What the weight is multiplied with: all tokens, or all patches of the padded input."""
    x, weight = case.tensors["x"], case.tensors["weight"]
    if weight.ndim == 2:
        return x.flatten(0, -2)
    op = op_of(nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]), padding=case.facts["padding"]))
    padded, shape = op.pad(x), tuple(weight.shape)
    return op.patches(padded, shape, torch.arange(op.positions(padded, shape))).flatten(1)


def _grid(case: Case) -> Grid:
    weight = case.tensors["weight"]
    scale, zero = (case.tensors[name].reshape(-1, *(1,) * (weight.ndim - 1)) for name in ("scale", "zero"))
    return Grid(scale, -zero * scale, case.levels)


@each("layer", "gptq")
def test_codes(place: tuple[str, str]) -> None:
    """Equal where GPTQ wins; a channel that rounding to nearest serves better keeps that, so ours is never worse."""
    case = load(*place)
    t, grid, inputs = case.tensors, _grid(case), _inputs(case)
    weight, ordered = t["weight"], t["ordered"]
    ours = gptq(weight, grid, inputs, case.config["percdamp"])
    nearest = ((weight / grid.scale).round() - grid.offset / grid.scale).clamp(
        0, grid.levels
    ) * grid.scale + grid.offset
    tie = ((weight / grid.scale).double() % 1 - 0.5).abs() < 1e-4  # symmetric: the largest weight lies on one
    close(nearest, t["nearest"], tie if float(tie.double().mean()) < 0.02 else tie & (nearest - t["nearest"] != 0))

    def errors(found: Tensor) -> Tensor:
        return ((found - weight).flatten(1).double() @ inputs.double().T).square().sum(1)

    wins = errors(ordered) < errors(t["nearest"])
    doubtful = tie.flatten(1).any(1)
    same = (ours - ordered).abs().flatten(1).amax(1) <= 1e-5 * ordered.abs().max()
    assert bool((same | ~wins | doubtful).all())
    assert bool((same & wins).any())
    slack = 1 + 1e-5
    assert bool((errors(ours) <= torch.minimum(errors(ordered), errors(t["nearest"])) * slack)[~doubtful].all())
    assert errors(ours).sum() <= errors(ordered).sum() * (slack + 0.05 * doubtful.double().mean())


@each("layer", "gptq")
def test_the_order_matters(place: tuple[str, str]) -> None:
    """Ours is the ordered one: it is not the other where the two differ."""
    case = load(*place)
    t = case.tensors
    ours = gptq(t["weight"], _grid(case), _inputs(case), case.config["percdamp"])
    step = _grid(case).scale
    apart = [float(((ours - t[name]).abs() > 0.5 * step).double().mean()) for name in ("ordered", "unordered")]
    assert apart[0] <= apart[1] and apart[0] < 0.2
