"""PassionSR's quantized products of attention. We keep these products in floating point (docs/parts.md)."""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.config.parts import LBQConfig
from qartsr.quantizers import LBQ
from tests.parity.methods.fixtures import Case, each, load
from tests.parity.methods.rules import bounds, close, close_sums, double


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _projected(case: Case, d: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    context, heads = d.get("context", d["x"]), case.facts["heads"]
    given = {"q": d["x"], "k": context, "v": context}
    q, k, v = (_heads(given[name] @ d[f"weight_{name}"].T, heads) for name in "qkv")
    return q, k, v


def _attention(case: Case, d: dict[str, Tensor], quantize: object) -> Tensor:
    q, k, v = _projected(case, d)
    qk, vw = d["scale_qk"], d["scale_vw"][:, None]
    scores = quantize("q", q * qk) @ quantize("k", k / qk).transpose(-1, -2) / q.shape[-1] ** 0.5
    w = scores.softmax(-1)
    out = quantize("w", w * vw[:, 0]) @ quantize("v", v / vw)
    return out.transpose(1, 2).flatten(2)


@each("products", "passionsr_attention")
def test_values_and_gradients(place: tuple[str, str]) -> None:
    """With our quantizer at their bounds: their values. Re-stated by their rule: their gradients too."""
    case = load(*place)
    t = case.tensors
    made: dict[str, LBQ] = {}
    for name in "qkvw":
        made[name] = LBQ(LBQConfig(), int(case.facts["bits"]), ())
        with torch.no_grad():
            made[name].lower.copy_(t[f"{name}.lower"].reshape(()))
            made[name].upper.copy_(t[f"{name}.upper"].reshape(()))
    with torch.no_grad():
        close(_attention(case, t, lambda name, x: made[name](x)), t["out"])
    ends = [f"{name}.{end}" for name in "qkvw" for end in ("lower", "upper")]
    d = double(t, "x", "scale_qk", "scale_vw", *ends)
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def official(name: str, x: Tensor) -> Tensor:
        lower, upper = d[f"{name}.lower"], d[f"{name}.upper"]
        out = bounds(x, lower, upper, case.levels, "official")
        out.retain_grad()
        scale = ((upper - lower) / case.levels).detach()
        seen[name] = out, (x.detach().abs() + lower.detach().abs()) / scale + 1
        return out

    _attention(case, d, official).backward(d["upstream"])
    for name in ("x", "scale_qk", "scale_vw"):
        close(d[name].grad, t[f"grad_{name}"])
    for name in ends:
        out, steps = seen[name[0]]
        close_sums(d[name].grad, t[f"grad_{name}"], (out.grad.abs() * steps).sum() / case.levels)


@each("products", "passionsr_attention")
def test_starts_and_what_floating_point_products_avoid(place: tuple[str, str]) -> None:
    """(max|k| / max|q|)^alpha and (max|v| / max|w|)^alpha; their loss is what ours does not have."""
    case = load(*place)
    d, alpha = double(case.tensors), case.config["s_alpha"]
    q, k, v = _projected(case, d)
    first = (k.abs().amax((0, 1, 2)) / q.abs().amax((0, 1, 2))) ** alpha
    scaled = [bounds(x, x.min(), x.max(), case.levels, "official") for x in (q * first, k / first)]
    met = (scaled[0] @ scaled[1].transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    w = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    close((k.abs().amax((0, 1, 2)) / q.abs().amax((0, 1, 2))) ** alpha, d["start_scale_qk"])
    close((v.abs().amax((0, 1, 3)) / met.abs().amax((0, 1, 2))) ** alpha, d["start_scale_vw"])
    ours = _attention(case, d, lambda name, x: x)
    close((w @ v).transpose(1, 2).flatten(2), ours)
    assert (d["out"] - ours).square().sum() > 1e-6 * ours.square().sum()
