"""QuantVSR's quantizers and layers: start, values with and without halves, and what its gradients let through."""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.config.parts import DynamicConfig, MinMaxConfig
from qartsr.layer import QuantLayer
from qartsr.quantizers import QUANTIZERS
from tests.parity.methods.fixtures import Case, each, load
from tests.parity.methods.layers import layer, operation, per_channel
from tests.parity.methods.rules import at_edge, close, close_sums, double, near_tie, quantize, through

FLOOR = 1e-4
"""Of their steps: hurts 8-bit weights that span little, not followed."""


def _grid(lower: Tensor, upper: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    scale = ((upper - lower) / levels).clamp_min(FLOOR)
    return scale, (-lower / scale).detach().round()


@each("weight", "quantvsr_quantizer")
def test_weights(place: tuple[str, str]) -> None:
    """Ends of the data per output channel; x's gradient is theirs but for the half step beyond the ends."""
    case = load(*place)
    t = case.tensors
    ours = QUANTIZERS.build(MinMaxConfig(granularity="channel"), bits=case.facts["bits"], shape=tuple(t["lower"].shape))
    ours.calibrate(t["x"])
    close(ours.lower, t["lower"])
    close(ours.upper, t["upper"])
    tie = near_tie(t["x"], t["scale"], t["zero"]) | near_tie(t["lower"], t["scale"], t["zero"])
    close(ours(t["x"]), t["out"], tie)
    _gradient_of_x(case, ours)
    d = double(t, "lower", "upper")
    scale, zero = _grid(d["lower"], d["upper"], case.levels)
    quantize(d["x"], scale, zero, case.levels, "round").backward(d["upstream"])
    size = (d["upstream"].abs() * (d["x"].abs() / d["scale"] + d["zero"].abs() + 1)).sum_to_size(d["lower"].shape)
    for end in ("lower", "upper"):
        close_sums(d[end].grad, t[f"grad_{end}"], size / case.levels, tie.sum_to_size(d["lower"].shape) * 1.0)


@each("input", "quantvsr_quantizer")
def test_inputs(place: tuple[str, str]) -> None:
    """The tensor's own ends, whatever their sign; not joined with 0."""
    case = load(*place)
    t = case.tensors
    ours = QUANTIZERS.build(DynamicConfig(), bits=case.facts["bits"], shape=())
    lower = t["x"].min()
    close(ours(t["x"]), t["out"], near_tie(t["x"], t["scale"], t["zero"]) | near_tie(lower, t["scale"], t["zero"]))
    close(ours.grid(t["x"]).scale, t["scale"])
    _gradient_of_x(case, ours)


def _gradient_of_x(case: Case, ours: torch.nn.Module) -> None:
    found = {}
    for rule in ("round", "clip"):
        d = double(case.tensors, "x")
        quantize(d["x"], d["scale"], d["zero"], case.levels, rule).backward(d["upstream"])
        found[rule] = d["x"].grad
    d = double(case.tensors)
    edge = at_edge(d["x"], d["scale"], d["zero"], case.levels)
    close(found["round"], case.tensors["grad_x"], edge)
    x = case.tensors["x"].clone().requires_grad_(True)
    ours(x).backward(case.tensors["upstream"])
    close(x.grad, found["clip"], edge)
    code = d["x"] / d["scale"] + d["zero"]
    beyond = ((code < 0) & (code >= -0.5)) | ((code > case.levels) & (code <= case.levels + 0.5))
    assert torch.equal((found["round"] != found["clip"]) & ~edge, beyond & ~edge)


@each("narrow", "quantvsr_quantizer")
def test_their_least_step_is_not_followed(place: tuple[str, str]) -> None:
    case = load(*place)
    t = case.tensors
    scale, zero = _grid(t["lower"], t["upper"], case.levels)
    assert bool((scale == case.facts["floor"]).any())
    close(scale, t["scale"])
    close(quantize(t["x"], scale, zero, case.levels, "round"), t["out"], near_tie(t["x"], scale, zero))
    ours = QUANTIZERS.build(MinMaxConfig(granularity="channel"), bits=case.facts["bits"], shape=tuple(scale.shape))
    ours.calibrate(t["x"])
    assert (ours(t["x"]) - t["x"]).square().sum() < (t["out"] - t["x"]).square().sum()


def _rotation(d: dict[str, Tensor], part: int) -> Tensor | None:
    return d.get("rotation" if part == 0 else f"rotation_{part}")


def _turned(x: Tensor, matrix: Tensor | None, transpose: bool) -> Tensor:
    """R x and w R^T over the channels of convolutions, x R and w R of linear layers."""
    if matrix is None:
        return x
    if x.ndim < 4:
        return x @ matrix
    return torch.einsum("nchw,dc->ndhw", x, matrix)


def _official(case: Case, d: dict[str, Tensor], first: str) -> Tensor:
    """out = Q(x) * Q(R) + b + x * (L1 L2) + lba, in float64; halves of the channels with ranges and rotation each."""
    weight, axis = d["weight"], 1 if d["weight"].ndim == 4 else -1
    product = (d["L1"] @ d["L2"]).reshape(weight.shape)
    cut = [weight.shape[1] // 2] if case.facts["split"] else []
    parts = zip(d["x"].tensor_split(cut, axis), (weight - product).tensor_split(cut, 1), strict=True)
    out = operation(case, d["x"], product) + per_channel(d["bias"] + d["lba"], weight)
    for number, (x, residual) in enumerate(parts):
        matrix, name = _rotation(d, number), "weight" if number == 0 else f"weight_{number}"
        x, residual = (_turned(values, matrix, False) for values in (x, residual))
        scale, zero = _grid(x.detach().min(), x.detach().max(), case.levels)
        inner = quantize(x, scale, zero, case.levels, first)
        scale, zero = _grid(d[f"{name}.lower"], d[f"{name}.upper"], case.levels)
        out = out + operation(case, inner, quantize(residual, scale, zero, case.levels, first))
    return out


def _rank(case: Case) -> int:
    return int(case.tensors["L1"].shape[1])


def _ours(case: Case) -> QuantLayer:
    """The layer of the method's row, calibrated on the file's weight; then the branch and bias of the file."""
    t, half = case.tensors, case.tensors["weight"].shape[1] // 2 if case.facts["split"] else 0
    ranges = {"granularity": "group", "group": half} if half else {"granularity": "channel"}
    made = layer(
        case,
        weight={"kind": "minmax", **ranges},
        input={"kind": "dynamic"},
        bias={"bits": 0, "learnable": True},
        skip={"kind": "svd", "rank": _rank(case)},
        split=half,
    )
    with torch.no_grad():
        made.skip.calibrate(made.weight, made.phi())
        close(made.skip.matrix(), (t["start_L1"] @ t["start_L2"]).reshape(made.weight.shape))
        if "rotation" not in t:
            made.weight_quantizer.calibrate(made.main())
        made.skip.left.copy_(t["L1"])
        made.skip.right.copy_(t["L2"].reshape(made.skip.right.shape))
        made.alignment.shift.copy_(t["lba"])
    return made


def _comparable(case: Case) -> bool:
    """Without rotation, and with halves that are equal: what our parts can be."""
    return "rotation" not in case.tensors and not (case.facts["split"] and case.tensors["weight"].shape[1] % 2)


@each("layer", "quantvsr_conv2d", "quantvsr_linear")
def test_layers(place: tuple[str, str]) -> None:
    """Start, ranges and output, halves included. Rotation is re-stated only: no part of ours (docs/parts.md)."""
    case = load(*place)
    t = case.tensors
    with torch.no_grad():
        close(_official(case, double(t), "round"), t["out"])
        close(operation(case, t["x"], (t["L1"] @ t["L2"]).reshape(t["weight"].shape)), t["skip_out"])
        if not _comparable(case):
            return
        ours = _ours(case)
        inner = getattr(ours.weight_quantizer, "inner", ours.weight_quantizer)
        for end in ("lower", "upper"):
            theirs = [t[f"{name}.{end}"].reshape(-1) for name in ("weight", "weight_1") if f"{name}.{end}" in t]
            close(getattr(inner, end).reshape(-1), torch.stack(theirs, 1).reshape(-1))
        # ours pads first: the border's 0 is in the input's range, which matters where an input has one sign
        assert t["x"].min() < 0 < t["x"].max()
        close(ours(t["x"]), t["out"])


@each("layer", "quantvsr_conv2d", "quantvsr_linear")
def test_gradients_of_layers(place: tuple[str, str]) -> None:
    """lba: theirs. L1, L2 and x: theirs re-stated with rounding first, ours with clipping first, nothing else."""
    case = load(*place)
    found: dict[str, dict[str, Tensor]] = {}
    for first in ("round", "clip"):
        d = double(case.tensors, "x", "L1", "L2", "lba")
        _official(case, d, first).backward(d["upstream"])
        found[first] = {name: d[name].grad for name in ("x", "L1", "L2", "lba")}
    for name, gradient in found["round"].items():
        close(gradient, case.tensors[f"grad_{name}"])
    if not _comparable(case):
        return
    d, ours = double(case.tensors, "x"), _ours(case).double()
    ours(d["x"]).backward(d["upstream"])
    close(d["x"].grad, found["clip"]["x"], tolerance=1e-6)
    close(ours.skip.left.grad, found["clip"]["L1"], tolerance=1e-6)
    close(ours.skip.right.grad, found["clip"]["L2"], tolerance=1e-6)
    close(ours.alignment.shift.grad, case.tensors["grad_lba"])


@each("layer", "quantvsr_conv2d", "quantvsr_linear")
def test_both_stages_of_training(place: tuple[str, str]) -> None:
    """L1 and L2 first, then lba, by AdamW on the MSE to the float output; the rates and decay of the file."""
    case = load(*place)
    d, config = double(case.tensors, "L1", "L2", "lba"), case.config
    for names in (("L1", "L2"), ("lba",)):
        adam = torch.optim.AdamW(
            [d[name] for name in names], config["lr"], tuple(config["betas"]), weight_decay=config["weight_decay"]
        )
        for _ in range(3):
            adam.zero_grad()
            (_official(case, d, "round") - d["target"]).square().mean().backward()
            adam.step()
        for name in names:  # Adam divides by the gradient's size: where it vanishes, its sign is a matter of rounding
            error = (d[name] - case.tensors[f"stepped_{name}"]).abs().flatten()
            assert error.quantile(0.9) < 1e-3 * config["lr"] and error.max() <= 6 * config["lr"]


def test_straight_through() -> None:
    x = torch.tensor([0.4, 1.6], requires_grad=True)
    through(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1.0, 1.0]
