"""The official quantizers in our own words, in float64 and plain autograd: which order, and what a gradient passes.

With s the step, z the zero point and L the levels, out = s (clip(round(x / s) + z, 0, L) - z). Values do not depend on
the order of rounding and clipping; gradients differ in the half step beyond each end, where rounding first counts x as
inside.
"""

from __future__ import annotations

import torch
from torch import Tensor

TIGHT = 1e-5
"""Largest difference over largest value: some hundred roundings of fp32, which is what sums over a layer collect."""
EPS = torch.finfo(torch.float32).eps


def double(tensors: dict[str, Tensor], *leaves: str) -> dict[str, Tensor]:
    """Floating-point tensors in float64; ``leaves`` want gradients."""
    found = {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}
    for name in leaves:
        found[name] = found[name].clone().requires_grad_(True)
    return found


def through(x: Tensor) -> Tensor:
    """round(x), gradient 1."""
    return x + (x.round() - x).detach()


def inside(x: Tensor, levels: int) -> Tensor:
    """clip(x, 0, levels); the gradient passes where 0 <= x <= levels, ends included."""
    return torch.where((x >= 0) & (x <= levels), x, x.detach().clamp(0, levels))


def quantize(x: Tensor, s: Tensor, z: Tensor, levels: int, first: str) -> Tensor:
    """``first``: "round", as most public code, or "clip", as ours."""
    codes = inside(through(x / s) + z, levels) if first == "round" else through(inside(x / s + z, levels))
    return s * (codes - z)


def bounds(x: Tensor, lower: Tensor, upper: Tensor, levels: int, rule: str, stale: Tensor | None = None) -> Tensor:
    """LBQ. ``rule`` "official": z = R(lower / s') with s' detached, rounded first; "ours": z follows s, clipped first.

    ``stale``: s', the step of the call before (official quirk); None: of this call.
    """
    s = (upper - lower) / levels
    if rule == "official":
        return quantize(x, s, -through(lower / (s if stale is None else stale).detach()), levels, "round")
    return quantize(x, s, -through(lower / s), levels, "clip")


def near_tie(x: Tensor, s: Tensor, z: Tensor) -> Tensor:
    """Where fp32 may take either of two codes: x / s is known to a few roundings of |x / s| + |z|."""
    steps = x.double() / s.double()
    slack = 4 * EPS * (steps.abs() + z.double().abs() + 1)
    return ((steps - steps.floor() - 0.5).abs() < slack).expand_as(steps)


def at_edge(x: Tensor, s: Tensor, z: Tensor, levels: int) -> Tensor:
    """Where fp32 may see x on either side of an end of the clipping, or of the half step beyond it."""
    code = x.double() / s.double() + z.double()
    slack = 4 * EPS * (code.abs() + 2 * z.double().abs() + 1)
    ends = (-0.5, 0.0, float(levels), levels + 0.5)
    return torch.stack([(code - end).abs() < slack for end in ends]).any(0)


def close(ours: Tensor, theirs: Tensor, skip: Tensor | None = None, tolerance: float = TIGHT) -> None:
    """|ours - theirs| <= tolerance * max|theirs|; ``skip``: what fp32 leaves open, hardly anything."""
    assert ours.numel() == theirs.numel(), (ours.shape, theirs.shape)
    ours, theirs = ours.detach().double().reshape(theirs.shape), theirs.detach().double()
    error = (ours - theirs).abs()
    if skip is not None:
        assert skip.double().mean() < 0.02, "too much is left out of the comparison"
        error = error[~skip.expand_as(error)]
    assert float(error.max()) <= tolerance * float(theirs.abs().max()), float(error.max() / theirs.abs().max())


def close_sums(ours: Tensor, theirs: Tensor, size: Tensor, doubtful: Tensor | float = 0.0) -> None:
    """Sums whose terms cancel: known to some roundings of ``size``, the sum of the terms' parts before they cancel.

    ``doubtful``: what terms may change by that fp32 leaves open.
    """
    ours, theirs = ours.detach().double().reshape(theirs.shape), theirs.detach().double()
    allowed = torch.maximum(8 * EPS * size.reshape(theirs.shape), TIGHT * theirs.abs().max())
    if isinstance(doubtful, Tensor):
        allowed = allowed + doubtful.reshape(theirs.shape)
    assert bool(((ours - theirs).abs() <= allowed).all()), float(((ours - theirs).abs() / allowed).max())


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over largest value."""
    return float((ours.double().reshape(theirs.shape) - theirs.double()).abs().max() / theirs.double().abs().max())
