"""PassionSR's learned bounds (LBQ): start, values, and where its gradients and ours part."""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.config.parts import LBQConfig
from qartsr.quantizers import LBQ, stats_of
from tests.parity.methods.fixtures import Case, each, load
from tests.parity.methods.rules import at_edge, bounds, close, close_sums, double, near_tie


def _lbq(case: Case, start: str = "", half_step: bool = False) -> LBQ:
    """Ours with the bounds of the file."""
    lower, upper = case.tensors[f"{start}lower"], case.tensors[f"{start}upper"]
    shape = tuple(lower.shape) if lower.numel() > 1 else ()
    made = LBQ(LBQConfig(half_step=half_step), int(case.facts["bits"]), shape)
    with torch.no_grad():
        made.lower.copy_(lower.reshape(shape))
        made.upper.copy_(upper.reshape(shape))
    return made


def _open(case: Case, start: str = "") -> Tensor:
    """Elements to which fp32 may give either of two codes: their own tie, or that of the zero point."""
    t = case.tensors
    scale, zero = t[f"{start}scale"], t[f"{start}zero"]
    return near_tie(t["x"], scale, zero) | near_tie(t[f"{start}lower"], scale, zero)


@each("bounds", "passionsr_quantizer")
def test_start_and_values(place: tuple[str, str]) -> None:
    case = load(*place)
    t = case.tensors
    quantizer = _lbq(case)
    quantizer.calibrate(t["x"])
    close(quantizer.lower, t["start_lower"])
    close(quantizer.upper, t["start_upper"])
    for start in ("start_", ""):
        grid = _lbq(case, start).grid(t["x"])
        close(grid.scale, t[f"{start}scale"])
        close(
            grid.offset,
            t[f"{start}scale"] * t[f"{start}zero"],
            near_tie(t[f"{start}lower"], t[f"{start}scale"], t[f"{start}zero"]),
        )
        close(_lbq(case, start)(t["x"]), t[f"{start}out"], _open(case, start))


@each("bounds", "passionsr_quantizer")
def test_gradient_of_x_differs_in_the_half_step_beyond_the_ends_only(place: tuple[str, str]) -> None:
    """Theirs rounds first, so the half step beyond an end counts as inside; ours clips first (docs/parts.md)."""
    case = load(*place)
    t = case.tensors
    x = t["x"].clone().requires_grad_(True)
    _lbq(case)(x).backward(t["upstream"])
    beyond, edge = t["half_step_beyond"].bool(), at_edge(t["x"], t["scale"], -t["zero"], case.levels)
    close(x.grad, torch.where(beyond, 0, t["grad_x"]), edge)
    assert not bool(x.grad[beyond & ~edge].any())
    x = t["x"].clone().requires_grad_(True)
    _lbq(case, half_step=True)(x).backward(t["upstream"])
    close(x.grad, t["grad_x"], edge)


@each("bounds", "passionsr_quantizer")
def test_gradients_of_the_bounds_differ_by_order_and_zero_point_only(place: tuple[str, str]) -> None:
    """Re-stated with rounding first and a detached zero point: theirs. With clipping first and a live one: ours."""
    case = load(*place)
    for start in ("start_", ""):
        found: dict[str, dict[str, Tensor]] = {}
        for rule in ("official", "ours"):
            d = double(case.tensors, f"{start}lower", f"{start}upper")
            out = bounds(d["x"], d[f"{start}lower"], d[f"{start}upper"], case.levels, rule)
            out.backward(d["upstream"])
            found[rule] = {end: d[f"{start}{end}"].grad for end in ("lower", "upper")}
        d = double(case.tensors)
        ours = _lbq(case, start).double()
        ours(d["x"]).backward(d["upstream"])
        like, steps = d[f"{start}lower"], (d["x"] / d[f"{start}scale"]).abs() + d[f"{start}zero"].abs()
        size = (d["upstream"].abs() * (steps + 1)).sum_to_size(like.shape) / case.levels
        edge = at_edge(d["x"], d[f"{start}scale"], -d[f"{start}zero"], case.levels) | _open(case, start)
        doubtful = (d["upstream"].abs() * edge * (1 + d[f"{start}zero"].abs())).sum_to_size(like.shape)
        for end, parameter in (("lower", ours.lower), ("upper", ours.upper)):
            close_sums(found["official"][end], d[f"{start}grad_{end}"], size, doubtful)
            close(parameter.grad, found["ours"][end], tolerance=1e-9)


@each("bounds", "passionsr_quantizer")
def test_their_zero_point_lags_a_call_behind_and_ours_does_not(place: tuple[str, str]) -> None:
    """Not followed: z divides by the step of the call before. So the first image after a change has another grid."""
    case = load(*place)
    t = case.tensors
    d = double(t)
    stale = bounds(d["x"], d["lower"], d["upper"], case.levels, "official", d["start_scale"])
    ties = near_tie(t["x"], t["scale"], t["zero"]) | near_tie(t["lower"], t["start_scale"], t["zero"])
    close(stale, t["stale_out"], ties)
    close(_lbq(case)(t["x"]), t["out"], _open(case))  # at once, where theirs needs a second call


@each("bounds", "passionsr_quantizer")
def test_three_steps_of_theirs(place: tuple[str, str]) -> None:
    """Adam on their gradients, stale zero point included: the reading above is the whole rule."""
    case = load(*place)
    d = double(case.tensors, "lower", "upper")
    rate, before = case.config["step_lr"], d["scale"]
    adam = torch.optim.Adam([d["lower"], d["upper"]], rate)
    for _ in range(3):
        adam.zero_grad()
        bounds(d["x"], d["lower"], d["upper"], case.levels, "official", before).backward(d["upstream"])
        before = ((d["upper"] - d["lower"]) / case.levels).detach()
        adam.step()
    for end in ("lower", "upper"):
        moved = (d[end] - d[f"stepped_{end}"]).abs().max()
        assert moved < 1e-3 * 3 * rate, float(moved)


@each("running", "passionsr_quantizer")
def test_input_ranges_are_all_images_not_a_running_mean(place: tuple[str, str]) -> None:
    """Theirs: the first batch sets the range, every call moves it by 1 - momentum; ours: the ends of all batches."""
    case = load(*place)
    batches, momentum = case.tensors["batches"].double(), case.config.get("momentum", case.facts["momentum"])
    ends = torch.stack([torch.stack([b.min(), b.max()]) for b in batches])
    present, found = ends[0], []
    for each_batch in ends:
        present = momentum * present + (1 - momentum) * each_batch
        found.append(present)
    close(torch.stack(found), case.tensors["ranges"])
    ours = LBQ(LBQConfig(), int(case.facts["bits"]), ())
    ours.calibrate(stats_of(case.tensors["batches"], 1))
    close(ours.lower, ends[:, 0].min())
    close(ours.upper, ends[:, 1].max())
