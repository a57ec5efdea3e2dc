"""EfficientDM's quantizers and its adapter on integers (QALoRA)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qartsr.config.parts import LSQConfig
from qartsr.layer import QuantLayer
from qartsr.quantizers import LSQ, encode, stats_of
from tests.parity.methods.fixtures import Case, each, load
from tests.parity.methods.layers import layer, operation
from tests.parity.methods.rules import at_edge, close, close_sums, double, near_tie, quantize, relative

WEIGHT = {"kind": "lsq", "granularity": "channel", "offset": True, "init": "minmax", "half_step": True}
"""As in the method's row."""


def _weight(case: Case, shape: tuple[int, ...], half_step: bool = True) -> LSQ:
    return LSQ(LSQConfig.model_validate({**WEIGHT, "half_step": half_step}), int(case.facts["bits"]), shape)


def _factor(made: LSQ, elements: int) -> float:
    """LSQ's on the gradient of a step; they have none, and Adam does not see it."""
    return 1 / math.sqrt(elements / made.step.numel() * made.levels)


@each("weight", "efficientdm_quantizer")
def test_weights(place: tuple[str, str]) -> None:
    """Start, values and, with the half step passed, gradients."""
    case = load(*place)
    t = case.tensors
    made = _weight(case, tuple(t["start_delta"].shape))
    made.calibrate(t["x"])
    close(made.step, t["start_delta"])
    tie = near_tie(t["x"].flatten(1).amin(1).reshape(t["start_delta"].shape), t["start_delta"], t["start_zero"])
    close(made.offset.zero, t["start_zero"], tie)
    close(made(t["x"]), t["start_out"], near_tie(t["x"], t["start_delta"], t["start_zero"]))
    zero = t.get("zero", t["start_zero"])
    with torch.no_grad():
        made.step.copy_(t["delta"])
        made.offset.zero.copy_(zero)
    x = t["x"].clone().requires_grad_(True)
    out = made(x)
    close(out, t["out"], near_tie(t["x"], t["delta"], zero))
    out.backward(t["upstream"])
    edge = at_edge(t["x"], t["delta"], zero, case.levels) | near_tie(t["x"], t["delta"], zero)
    close(x.grad, t["grad_x"], edge)
    size = (t["upstream"].abs() * ((t["x"] / t["delta"]).abs() + zero.abs() + 1)).double()
    doubtful = (t["upstream"].abs() * edge * (1 + zero.abs())).double()
    like = t["delta"].shape
    gradient = made.step.grad / _factor(made, t["x"].numel())
    close_sums(gradient, t["grad_delta"], size.sum_to_size(like), doubtful.sum_to_size(like))


@each("weight", "efficientdm_quantizer")
def test_clipping_first_differs_in_the_half_step_only(place: tuple[str, str]) -> None:
    """What ``half_step`` decides; the default is ours."""
    case = load(*place)
    d = double(case.tensors)
    zero, found = d.get("zero", d["start_zero"]), {}
    for first in ("round", "clip"):
        leaf, step = d["x"].clone().requires_grad_(True), d["delta"].clone().requires_grad_(True)
        quantize(leaf, step, zero, case.levels, first).backward(d["upstream"])
        found[first] = leaf.grad, step.grad
    made = _weight(case, tuple(d["delta"].shape), half_step=False).double()
    with torch.no_grad():
        made.step.copy_(d["delta"])
        made.offset.zero.copy_(zero)
    x = d["x"].clone().requires_grad_(True)
    made(x).backward(d["upstream"])
    edge = at_edge(d["x"], d["delta"], zero, case.levels)
    close(x.grad, found["clip"][0], edge)
    close(made.step.grad / _factor(made, x.numel()), found["clip"][1], tolerance=1e-9)
    code = d["x"] / d["delta"] + zero
    beyond = ((code < 0) & (code >= -0.5)) | ((code > case.levels) & (code <= case.levels + 0.5))
    assert torch.equal((found["round"][0] != found["clip"][0]) & ~edge, beyond & ~edge)


@each("input", "efficientdm_quantizer")
def test_inputs(place: tuple[str, str]) -> None:
    """Re-stated: theirs. A zero point that trains keeps 0 on their grid and moves its ends; ours (LSQ+) moves all."""
    case = load(*place)
    t, d = case.tensors, double(case.tensors, "x", "delta", "zero")
    out = quantize(d["x"], d["delta"], d["zero"], case.levels, "round")
    tie = near_tie(t["x"], t["delta"], torch.zeros(())) | at_edge(t["x"], t["delta"], t["zero"].round(), case.levels)
    close(out, t["out"], tie)
    out.backward(d["upstream"])
    close(d["x"].grad, t["grad_x"], tie | at_edge(t["x"], t["delta"], t["zero"], case.levels))
    size = (d["upstream"].abs() * ((d["x"] / d["delta"]).abs() + d["zero"].abs() + 1)).sum()
    doubtful = (d["upstream"].abs() * tie * (1 + d["zero"].abs())).sum()
    close_sums(d["delta"].grad, t["grad_delta"], size, doubtful)
    close_sums(d["zero"].grad, t["grad_zero"], d["upstream"].abs().sum() * d["delta"], doubtful * d["delta"])
    made = LSQ(LSQConfig(offset=True), int(case.facts["bits"]), ())
    with torch.no_grad():
        made.step.copy_(t["start_delta"])
        made.offset.value.copy_(-t["start_zero"] * t["start_delta"])
        close(made(t["x"]), t["start_out"], near_tie(t["x"], t["start_delta"], t["start_zero"]))  # whole: equal
        made.step.copy_(t["delta"])
        made.offset.value.copy_(-t["zero"] * t["delta"])
        if abs(float(t["zero"]) - round(float(t["zero"]))) > 0.05:
            assert relative(made(t["x"]), t["out"]) > 1e-3


@each("input", "efficientdm_quantizer")
def test_start_of_inputs(place: tuple[str, str]) -> None:
    """The factor 1.00, 0.99, ... on both ends with the least mean |error|^2.4; ours: least squares, both ends alone."""
    case = load(*place)
    t, low, high = case.tensors, case.tensors["x"].min().clamp_max(0), case.tensors["x"].max().clamp_min(0)
    scored = []
    for number in range(80):
        share = 1 - number * 0.01
        step = (high - low) * share / case.levels
        zero = (-low * share / step).round()
        error = (quantize(t["x"], step, zero, case.levels, "round") - t["x"]).abs().pow(2.4).mean()
        scored.append((float(error), step, zero))
    best = min(error for error, _, _ in scored)
    near = [(step, zero) for error, step, zero in scored if error <= best * (1 + 1e-4)]  # fp32 may take any of these
    assert any(relative(s, t["start_delta"]) < 1e-5 and z == t["start_zero"] for s, z in near)
    ours = LSQ(LSQConfig(offset=True), int(case.facts["bits"]), ())
    ours.calibrate(stats_of(t["x"], 1))
    assert (ours(t["x"]) - t["x"]).square().sum() <= 1.02 * (t["start_out"] - t["x"]).square().sum()


def _ours(case: Case) -> QuantLayer:
    """The layer of the method's row at the start of the file, without input quantizer (see above)."""
    t = case.tensors
    made = layer(
        case,
        weight=WEIGHT,
        input={"kind": "none"},
        rounding={"kind": "integer"},
        bias={"bits": 0},
        adapter={"kind": "lora", "rank": case.config["rank"]},
    )
    with torch.no_grad():
        made.adapter.left.zero_()
        made.weight_quantizer.calibrate(made.main())
        made.rounding.calibrate(made.main(), made.weight_quantizer, torch.empty(0))
        close(made.weight_quantizer.step, t["weight_delta"])
        assert torch.equal(made.rounding.codes, t["codes"].int())
        close(made.rounding(made.main(), made.weight_quantizer), t["dequantized"])
    return made


def _rank(case: Case) -> int:
    """Ours is at most the layer's rank; a product of larger factors is the same matrix."""
    return min(int(case.config["rank"]), *(case.tensors["weight"].flatten(1).shape))


@each("layer", "efficientdm_qalora_conv2d", "efficientdm_qalora_linear")
def test_start_of_the_adapter(place: tuple[str, str]) -> None:
    """A uniform within 1 / sqrt(fan-in), B zero: so the start is the naive quantization."""
    case = load(*place)
    t, bound = case.tensors, case.tensors["weight"][0].numel() ** -0.5
    for made in (t["start_loraA"], _ours_started(case).adapter.right):
        assert made.abs().max() <= bound * (1 + 1e-6) and made.abs().max() > 0.9 * bound
    assert not t["start_loraB"].any()
    close(t["start_out"], t["naive_out"])


def _ours_started(case: Case) -> QuantLayer:
    made = _ours(case)
    made.adapter.calibrate(made.weight, made.phi())
    return made


@each("layer", "efficientdm_qalora_conv2d", "efficientdm_qalora_linear")
def test_values_and_gradients_of_the_adapter(place: tuple[str, str]) -> None:
    """Q(integers + B A) with its base and grid: theirs, gradients included. Ours has at most the layer's rank."""
    case = load(*place)
    t = case.tensors
    product = (t["loraB"].flatten(1) @ t["start_loraA"].flatten(1)).reshape(t["weight"].shape)
    d = double(t, "weight_delta", "loraB", "start_loraA", "x", "input_delta", "input_zero")
    base_step = d["weight_delta"].detach().clone().requires_grad_(True)
    added = (d["loraB"].flatten(1) @ d["start_loraA"].flatten(1)).reshape(t["weight"].shape)
    base = base_step * (d["codes"].double() - d["weight_zero"])
    weight = quantize(base + added, d["weight_delta"], d["weight_zero"], case.levels, "round")
    inner = quantize(d["x"], d["input_delta"], d["input_zero"], case.levels, "round")
    out = operation(case, inner, weight, d["bias"])
    weight.retain_grad()
    close(out, t["out"])
    out.backward(d["upstream"])
    steps = (base + added).detach().abs() / d["weight_delta"].detach() + d["weight_zero"] + 1
    size = (weight.grad.abs() * steps).sum_to_size(base_step.shape)
    for name, found in (("weight_delta", d["weight_delta"]), ("dequantizer_delta", base_step)):
        close_sums(found.grad, t[f"grad_{name}"], size)
    for name, leaf in (("loraB", "loraB"), ("loraA", "start_loraA"), ("x", "x")):
        close(d[leaf].grad, t[f"grad_{name}"])
    ours = _ours(case).double()
    rank = _rank(case)
    u, s, vh = torch.linalg.svd(product.double().flatten(1), full_matrices=False)
    with torch.no_grad():
        ours.adapter.left.copy_(u[:, :rank] * s[:rank])
        ours.adapter.right.copy_(vh[:rank].reshape(ours.adapter.right.shape))
    mine = ours.weight_quantizer(ours.scaled_weight())
    close(operation(case, inner.detach(), mine, d["bias"]), t["out"])
    mine.backward(weight.grad)
    total = (base_step.grad + d["weight_delta"].grad) * _factor(ours.weight_quantizer, t["weight"].numel())
    close_sums(ours.weight_quantizer.step.grad, total, size)
    # with F1 = U S and F2 = V^T the gradients are G V and (U S)^T G of the same G as theirs, G A^T and B^T G
    of_weight = _weight_gradient(case, d, weight.grad)
    close(ours.adapter.left.grad, of_weight @ ours.adapter.right.detach().flatten(1).T)
    close(ours.adapter.right.grad.flatten(1), ours.adapter.left.detach().T @ of_weight)
    close(of_weight @ d["start_loraA"].detach().flatten(1).T, t["grad_loraB"].flatten(1))


def _weight_gradient(case: Case, d: dict[str, Tensor], upstream: Tensor) -> Tensor:
    """G (O, columns): what reaches the sum of base and adapter, rounding first."""
    added = (d["loraB"].flatten(1) @ d["start_loraA"].flatten(1)).reshape(d["weight"].shape).detach()
    leaf = added.requires_grad_(True)
    base = d["weight_delta"].detach() * (d["codes"].double() - d["weight_zero"])
    quantize(base + leaf, d["weight_delta"].detach(), d["weight_zero"], case.levels, "round").backward(upstream)
    assert leaf.grad is not None
    return leaf.grad.flatten(1)


def test_codes_of_a_start() -> None:
    made = LSQ(LSQConfig.model_validate(WEIGHT), 2, (1, 1))
    made.calibrate(torch.tensor([[-1.0, 2.0, 0.0]]))
    x = torch.tensor([[-1.0, 0.0, 1.0, 2.0]])
    assert encode(x, made.grid(x)).tolist() == [[0, 1, 2, 3]]
