"""PassionSR's learnable equivalent transformation (LET): its start, its function, and where padding and signs part."""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.config.parts import LBQConfig
from qartsr.layer import QuantLayer
from qartsr.quantizers import LBQ
from qartsr.transforms import initial_phi
from tests.parity.methods.fixtures import Case, each, load
from tests.parity.methods.layers import layer, operation, per_channel
from tests.parity.methods.rules import bounds, close, close_sums, double

NONE = {"kind": "none"}
ENDS = ("x_min", "x_max")


def _absmax(x: Tensor, ndim: int) -> Tensor:
    return x.abs().movedim(1 if ndim == 4 else -1, 0).flatten(1).amax(1)


def _halves(case: Case, x: Tensor) -> tuple[Tensor, ...]:
    """Along dim 1: channels of weights and of a convolution's input, but tokens of a linear layer's (their quirk)."""
    return x.tensor_split([x.shape[1] // 2], 1) if case.facts["split"] else (x,)


def _sign(case: Case) -> int:
    """Their linear layer has delta's sign wrong: (x + delta) / phi, and W delta is added."""
    return 1 if case.tensors["weight"].ndim == 4 else -1


def _moved(case: Case, d: dict[str, Tensor]) -> Tensor:
    """Their convolution of delta, padded with zeros like the input; a vector for linear layers."""
    like = per_channel(d["offset"], d["weight"]) + torch.zeros_like(d["x"])
    return operation(case, like, d["weight"])


class Restated:
    """Their layer, zeros padded after the quantizer; ``seen``: every quantizer's output and |x / s| + |z| + 1."""

    def __init__(self, case: Case, d: dict[str, Tensor], rule: str) -> None:
        self.case, self.d, self.rule = case, d, rule
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}
        phi = per_channel(d["scale_factor"], d["weight"])
        shift = _sign(case) * per_channel(d["offset"], d["weight"])
        weight = self._quantized("weight_quantizer_{}", d["weight"] * phi)
        self.out = operation(
            case,
            self._quantized("act_quantizer_{}", (d["x"] - shift) / phi),
            weight,
            self._quantized("bias_quantizer", d["bias"]),
        ) + _moved(case, d)

    def _quantized(self, name: str, x: Tensor) -> Tensor:
        parts = _halves(self.case, x) if "{}" in name else (x,)
        made = []
        for number, part in enumerate(parts):
            key = name.format(number)
            lower, upper = (self.d[f"{key}.{end}"] for end in ENDS)
            out = bounds(part, lower, upper, self.case.levels, self.rule)
            scale = ((upper - lower) / self.case.levels).detach()
            self.seen[key] = out, (part.detach() / scale).abs() + (lower.detach() / scale).abs() + 1
            made.append(out)
            if out.requires_grad:
                out.retain_grad()
        return torch.cat(made, 1) if len(made) > 1 else made[0]

    def size(self, key: str) -> Tensor:
        """What the gradient of a bound is summed from, before it cancels."""
        out, steps = self.seen[key]
        assert out.grad is not None
        return (out.grad.abs() * steps).sum_to_size(self.d[f"{key}.x_min"].shape) / self.case.levels


def _ours(case: Case) -> QuantLayer:
    """Our parts with their bounds; only where a split is one of channels, as ours is."""
    half = case.tensors["weight"].shape[1] // 2 if case.facts["split"] else 0
    weight = (
        {"kind": "lbq", "granularity": "group", "group": half} if half else {"kind": "lbq", "granularity": "channel"}
    )
    parts = {"weight": weight, "input": {"kind": "lbq"}, "transform": {"kind": "channel_affine"}, "split": half}
    made, t = layer(case, bias={"bits": 0}, **parts), case.tensors
    count = 2 if half else 1
    with torch.no_grad():
        made.transform.phi.copy_(t["scale_factor"])
        made.transform.delta.copy_(_sign(case) * t["offset"])
        for quantizer, name in ((made.weight_quantizer, "weight"), (made.input_quantizer, "act")):
            inner = quantizer.inner if half else quantizer
            for end, own in zip(ENDS, (inner.lower, inner.upper), strict=True):
                values = [t[f"{name}_quantizer_{n}.{end}"].reshape(-1) for n in range(count)]
                own.copy_(torch.stack(values, 1).reshape(own.shape))
    return made


def _comparable(case: Case) -> bool:
    weight = case.tensors["weight"]
    return not case.facts["split"] or (weight.ndim == 4 and weight.shape[1] % 2 == 0)


def _padded_their_way(case: Case, ours: QuantLayer, d: dict[str, Tensor]) -> Tensor:
    """Our transform and quantizers, zeros padded after them, delta's convolution and the bias in their places."""
    inner = ours.input_quantizer(ours.transform.input(d["x"]))
    weight = ours.weight_quantizer(ours.transform.weight(d["weight"]))
    bias = bounds(d["bias"], *(d[f"bias_quantizer.{end}"] for end in ENDS), case.levels, "ours")
    delta = _sign(case) * per_channel(ours.transform.delta, d["weight"]) + torch.zeros_like(d["x"])
    return operation(case, inner, weight, bias) + operation(case, delta, d["weight"])


@each("layer", "passionsr_let_conv2d", "passionsr_let_linear")
def test_start_of_phi(place: tuple[str, str]) -> None:
    """One batch: equal. Further batches: theirs moves a tenth of the way; ours takes one maximum (docs/parts.md)."""
    case = load(*place)
    t, alpha = case.tensors, case.config["s_alpha"]
    maxima = [_absmax(t[f"batch_{n}"], t["weight"].ndim) for n in (0, 1)]
    first, second = (initial_phi(maximum, t["weight"], alpha) for maximum in maxima)
    close(first, t["scale_after_1"])
    close(0.9 * first + 0.1 * second, t["scale_after_2"])
    close(initial_phi(torch.maximum(*maxima), t["weight"], alpha), torch.maximum(first, second))


@each("layer", "passionsr_let_conv2d", "passionsr_let_linear")
def test_start_of_ranges(place: tuple[str, str]) -> None:
    """Ends of the transformed weight and of the first batch's input, at the first phi; of the bias."""
    case = load(*place)
    t = case.tensors
    phi = per_channel(t["scale_after_1"], t["weight"])
    found = {"bias_quantizer": t["bias"]}
    for name, values in (("act", t["batch_0"] / phi), ("weight", t["weight"] * phi)):
        found |= {f"{name}_quantizer_{n}": part for n, part in enumerate(_halves(case, values))}
    found = {name: values for name, values in found.items() if f"start_{name}.x_min" in t}
    assert len(found) >= 3
    for name, values in found.items():
        made = LBQ(LBQConfig(), int(case.facts["bits"]), tuple(t[f"start_{name}.x_min"].shape))
        made.calibrate(values)
        close(made.lower, t[f"start_{name}.x_min"])
        close(made.upper, t[f"start_{name}.x_max"])


@each("layer", "passionsr_let_conv2d", "passionsr_let_linear")
def test_the_function_without_quantizers(place: tuple[str, str]) -> None:
    """Ours keeps it exactly; so does their convolution. Not followed: their linear layer adds 2 W delta too much."""
    case = load(*place)
    t = case.tensors
    ours = layer(case, weight=NONE, input=NONE, bias={"bits": 0}, transform={"kind": "channel_affine"})
    with torch.no_grad():
        ours.transform.phi.copy_(t["scale_factor"])
        ours.transform.delta.copy_(t["offset"])
        close(ours(t["x"]), t["plain_out"])
        excess = 0 if t["weight"].ndim == 4 else 2 * t["weight"] @ t["offset"]
        close(t["plain_out"] + excess, t["exact_out"])


@each("layer", "passionsr_let_conv2d", "passionsr_let_linear")
def test_values(place: tuple[str, str]) -> None:
    """Re-stated: theirs. Our parts padded their way: theirs. Our layer: theirs inside; we pad zeros of x, first."""
    case = load(*place)
    t = case.tensors
    with torch.no_grad():
        close(Restated(case, double(t), "official").out, t["out"])
        if not _comparable(case):
            return
        ours = _ours(case)
        close(_padded_their_way(case, ours, t), t["out"])
        bias = bounds(t["bias"], *(t[f"bias_quantizer.{end}"] for end in ENDS), case.levels, "ours")
        through_delta = (t["weight"] * per_channel(t["offset"], t["weight"])).flatten(1).sum(1)
        instead = bias + through_delta - ours.total_bias()
        made = ours(t["x"]) + per_channel(instead, t["weight"])
        taps = operation(case, torch.ones_like(t["x"]), torch.ones_like(t["weight"]))
        inside = taps == taps.max()
        assert bool(inside.any())
        close(made[inside], t["out"][inside])


@each("layer", "passionsr_let_conv2d", "passionsr_let_linear")
def test_gradients_differ_by_order_and_zero_point_only(place: tuple[str, str]) -> None:
    """Re-stated with rounding first and a detached zero point: theirs. Clipping first, live zero point: our parts."""
    case = load(*place)
    keys = [name for name in case.tensors if name.endswith(ENDS) and f"grad_{name}" in case.tensors]
    leaves = ("x", "scale_factor", "offset", *keys)
    found: dict[str, dict[str, Tensor]] = {}
    for rule in ("official", "ours"):
        d = double(case.tensors, *leaves)
        restated = Restated(case, d, rule)
        restated.out.backward(d["upstream"])
        found[rule] = {name: d[name].grad for name in leaves}
        if rule == "official":
            for name in keys:
                close_sums(d[name].grad, case.tensors[f"grad_{name}"], restated.size(name.rpartition(".")[0]))
            for name in ("x", "scale_factor", "offset"):
                close(d[name].grad, case.tensors[f"grad_{name}"])
    if not _comparable(case):
        return
    d, ours = double(case.tensors, "x"), _ours(case).double()
    _padded_their_way(case, ours, d).backward(d["upstream"])
    close(d["x"].grad, found["ours"]["x"], tolerance=1e-6)  # delta's x is a constant; phi is fp32 in both
    close(ours.transform.phi.grad, found["ours"]["scale_factor"], tolerance=1e-6)
    close(ours.transform.delta.grad, _sign(case) * found["ours"]["offset"], tolerance=1e-6)
    count = 2 if case.facts["split"] else 1
    for quantizer, name in ((ours.weight_quantizer, "weight"), (ours.input_quantizer, "act")):
        inner = quantizer.inner if case.facts["split"] else quantizer
        for end, own in zip(ENDS, (inner.lower, inner.upper), strict=True):
            theirs = [found["ours"][f"{name}_quantizer_{n}.{end}"].reshape(-1) for n in range(count)]
            close(own.grad, torch.stack(theirs, 1).reshape(own.shape), tolerance=1e-6)
