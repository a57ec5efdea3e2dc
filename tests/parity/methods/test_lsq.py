"""LSQ and LSQ+ against widely used implementations."""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.config.parts import LSQConfig
from qartsr.quantizers import LSQ
from tests.parity.methods.fixtures import Case, each, load
from tests.parity.methods.rules import at_edge, close, close_sums, near_tie


def _shape(step: Tensor, x: Tensor) -> tuple[int, ...]:
    """One step, or one per output channel."""
    return (step.numel(), *(1,) * (x.ndim - 1)) if step.numel() > 1 else ()


def _made(case: Case, **settings: object) -> LSQ:
    t = case.tensors
    made = LSQ(LSQConfig.model_validate(settings), int(case.facts["bits"]), _shape(t["step"], t["x"]))
    with torch.no_grad():
        made.step.copy_(t["step"].reshape(made.step.shape))
    return made


def _sums(case: Case, made: LSQ) -> tuple[Tensor, Tensor]:
    """The size of a step's gradient before it cancels, and what fp32 leaves open, both without LSQ's factor."""
    x, g, step = (case.tensors[k].double() for k in ("x", "upstream", "step"))
    step = step.reshape(made.step.shape)
    zero = torch.tensor(-float(case.facts["lowest"]))
    open_ = near_tie(x, step, zero) | at_edge(x, step, zero, case.levels)
    size = (g.abs() * ((x / step).abs() + zero + 1)).sum_to_size(step.shape)
    return size, (g.abs() * open_ * (1 + zero)).sum_to_size(step.shape)


@each("step", "lsq")
def test_lsq(place: tuple[str, str]) -> None:
    """Start, values and gradients; their factor has the whole tensor's n, ours the n of a step: sqrt(channels)."""
    case = load(*place)
    t = case.tensors
    made, started = _made(case), _made(case)
    started.calibrate(t["x"])
    magnitude = t["x"].abs().reshape(made.step.numel(), -1).mean(1)
    close(started.step, 2 * magnitude.reshape(made.step.shape) / case.facts["highest"] ** 0.5)
    if "start_step" in t:
        close(started.step, t["start_step"])
    zero = torch.tensor(-float(case.facts["lowest"]))
    step = t["step"].reshape(made.step.shape)
    x = t["x"].clone().requires_grad_(True)
    out = made(x)
    close(out, t["out"], near_tie(t["x"], step, zero))
    out.backward(t["upstream"])
    close(x.grad, t["grad_x"], at_edge(t["x"], step, zero, case.levels))
    shares = made.step.numel()
    theirs = case.facts["gradient_scale"]
    close(torch.tensor(1 / (case.facts["highest"] * t["x"].numel()) ** 0.5), torch.tensor(theirs))
    size, doubtful = _sums(case, made)
    close_sums(made.step.grad / shares**0.5, t["grad_step"], size * theirs, doubtful * theirs)


@each("input", "lsqplus")
def test_lsqplus_inputs(place: tuple[str, str]) -> None:
    """beta is the value of code 0 of signed codes; ours that of the lowest. d/ds = d/dstep + lowest d/doffset."""
    case = load(*place)
    t, lowest = case.tensors, float(case.facts["lowest"])
    made = _made(case, offset=True)
    offset = (t["beta"] + lowest * t["step"]).reshape(())
    with torch.no_grad():
        made.offset.value.copy_(offset)
    shifted = t["x"] - t["beta"]
    zero = torch.tensor(-lowest)
    x = t["x"].clone().requires_grad_(True)
    out = made(x)
    close(out, t["out"], near_tie(shifted, t["step"], zero))
    out.backward(t["upstream"])
    edge = at_edge(shifted, t["step"], zero, case.levels)
    close(x.grad, t["grad_x"], edge)
    ours, theirs = (case.levels * t["x"].numel()) ** -0.5, case.facts["gradient_scale"]
    step, value = made.step.grad / ours * theirs, made.offset.value.grad / ours * theirs
    size, doubtful = _sums(case, made)
    close_sums(step + lowest * value, t["grad_step"], size * theirs, doubtful * theirs)
    close_sums(value, t["grad_beta"], t["upstream"].abs().double().sum() * theirs, doubtful * theirs)
    lower, upper = t["x"].min(), t["x"].max()  # the third party's start; the paper's, and ours, has the least error
    close((upper - lower) / case.levels, t["start_step"])
    made.calibrate(t["x"])
    first = _made(case, offset=True)
    with torch.no_grad():
        first.step.copy_(t["start_step"])
        first.offset.value.copy_(lower)
    assert (made(t["x"]) - t["x"]).square().sum() <= (first(t["x"]) - t["x"]).square().sum()


@each("weight", "lsqplus")
def test_lsqplus_weights(place: tuple[str, str]) -> None:
    """max|mu +- 3 sigma| / 2**(b-1) as in the paper; the third party divides by 2**b - 1."""
    case = load(*place)
    t = case.tensors
    made, zero = _made(case, init="sigma"), torch.tensor(-float(case.facts["lowest"]))
    step = t["step"].reshape(made.step.shape)
    x = t["x"].clone().requires_grad_(True)
    out = made(x)
    close(out, t["out"], near_tie(t["x"], step, zero))
    out.backward(t["upstream"])
    close(x.grad, t["grad_x"], at_edge(t["x"], step, zero, case.levels))
    size, doubtful = _sums(case, made)
    theirs, shares = case.facts["gradient_scale"], made.step.numel()
    close_sums(made.step.grad / shares**0.5, t["grad_step"], size * theirs, doubtful * theirs)
    made.calibrate(t["x"])
    rows = t["x"].flatten(1).double()
    for correction in (0, 1):
        mean, deviation = rows.mean(1), rows.std(1, correction=correction)
        start = (mean.abs() + 3 * deviation) / case.levels
        if (start - t["start_step"].double()).abs().max() <= 1e-5 * start.max():
            break
    else:
        raise AssertionError("their start is another")
    factor = 1 if correction == 0 else ((rows.shape[1] - 1) / rows.shape[1]) ** 0.5
    assert torch.allclose(
        made.step.double().reshape(-1) * 2 ** (case.facts["bits"] - 1) - rows.mean(1).abs(),
        (t["start_step"].double() * case.levels - rows.mean(1).abs()) * factor, rtol=1e-5,
    )  # fmt: skip
