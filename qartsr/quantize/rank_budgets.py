"""How a budget of parameters is shared out over low-rank branches: ranks by the complexity of inputs (QuantVSR)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qartsr.config.policies import STCAConfig
from qartsr.errors import QartsrError
from qartsr.layer import LayerOp
from qartsr.models import Backbone
from qartsr.quantize.input_hooks import look_at_inputs

_BISECTIONS = 60


class Complexities(NamedTuple):
    """Of every layer's input, float64 (layers, images or clips)."""

    spatial: Tensor
    temporal: Tensor | None
    """None of images"""


@torch.no_grad()
def complexities(model: Backbone, images: Tensor, names: Sequence[str], frames: int = 1) -> Complexities:
    """:func:`complexity` of each layer's input for each of ``images`` (N, 3, H, W) in [-1, 1].

    ``frames`` > 1: so many images in a row are one clip, run as one batch; of a clip the mean over its frames, and
    :func:`temporal_complexity`. Raises QartsrError without images, for images that make no whole clips, and for a layer
    that never runs.
    """
    if not len(images):
        raise QartsrError("needs calibration images", "method.rank_policy", "plan with the calibration inputs")
    if len(images) % frames:
        what = f"{len(images)} calibration images make no clips of {frames}"
        raise QartsrError(what, "method.rank_policy.frames", "choose a divisor of their number")
    found: dict[str, list[Tensor]] = {name: [] for name in names}

    def look(name: str, op: LayerOp, x: Tensor) -> None:
        if name in found:
            each = len(x) // frames  # an encoder of clips sees every frame with those before it, the last one being new
            now = x[each - 1 :: each]
            spatial = torch.stack([complexity(frame, op) for frame in now.split(1)]).mean()
            void = spatial.isnan() or frames == 1
            temporal = spatial.new_tensor(float("nan")) if void else temporal_complexity(now)
            found[name].append(torch.stack([spatial, temporal]).cpu())

    look_at_inputs(model, images.split(frames), look)
    for name, values in found.items():
        if len(values) != len(images) // frames:
            raise QartsrError(
                "calibration has not seen this layer run once per image", name, "keep it in floating point"
            )
    both = torch.stack([torch.stack(values) for values in found.values()])
    return Complexities(both[..., 0], both[..., 1] if frames > 1 else None)


def temporal_complexity(x: Tensor) -> Tensor:
    """C_t of a clip's input, one row per frame: mean squared difference of neighbouring frames; float64, () in shape.

    QuantVSR's STCA (2508.04485, section 3.2). NaN of one frame.
    """
    return x.double().diff(dim=0).square().mean()


def complexity(x: Tensor, op: LayerOp) -> Tensor:
    """C_s of one image's input: standard deviation (n - 1) over positions, mean over channels; float64, () in shape.

    Not padded: a border of zeros would make a flat map look busy. NaN where there is one position. QuantVSR's STCA
    (2508.04485, section 3.2). For tokens the official code takes the deviation
    over the channels of each token, the axes being those of a convolution; here it runs over tokens, as the paper says.
    """
    last = op.channels_last(x).double()
    rows = last.reshape(-1, last.shape[-1])
    return rows.std(0).mean() if len(rows) > 1 else rows.new_tensor(float("nan"))


def votes(complexity: Tensor, config: STCAConfig, temporal: Tensor | None = None) -> list[int]:
    """The rank each layer asks for: minimum + images at or above the upper quantile - images at or below the lower.

    ``complexity`` and ``temporal``: (layers, images). Quantiles over all layers and images; clipped to minimum ..
    maximum (QuantVSR, section 3.2). With ``temporal``, of clips, a vote needs both beyond their own quantiles. A layer
    without complexity (NaN) is not in the quantiles and asks for the minimum.
    """
    high, low = torch.ones_like(complexity, dtype=torch.bool), torch.ones_like(complexity, dtype=torch.bool)
    for each in (complexity, *(() if temporal is None else (temporal,))):
        lower, upper = (torch.nanquantile(each.flatten(), share) for share in (config.lower, config.upper))
        high, low = high & (each >= upper), low & (each <= lower)
    asked = config.minimum + high.sum(1) - low.sum(1)
    return [int(rank) for rank in asked.clamp(config.minimum, config.maximum)]


def as_voted(asked: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]], config: STCAConfig) -> dict[str, int]:
    """Ranks as QuantVSR takes them: votes rounded to multiples, m floor((r + m / 2) / m), no larger than full rank.

    Deviation: none falls below the minimum, which the official code rounds to 0 where it is below half a multiple.
    """
    step, ranks = config.multiple, {}
    for name, shape in shapes.items():
        rounded = (asked[name] + step // 2) // step * step
        ranks[name] = min(max(rounded, config.minimum), shape[0], math.prod(shape[1:]))
    return ranks


def allocate_ranks(
    asked: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]], rank: int, config: STCAConfig
) -> dict[str, int]:
    """Ranks in proportion to those asked for, as large together as ``rank`` in every layer.

    A rank costs O + C k k numbers, and no layer has more than its full rank. The sum stays within the budget, and no
    layer could have one step more without leaving it. Deviation: QuantVSR takes the votes as they are, at whatever
    budget results; here methods are compared at one budget. Ranks are multiples of ``config.multiple``, or the
    minimum, or the largest that the layer or ``config.maximum`` allows. Raises QartsrError where even the minimum is
    beyond the budget.
    """
    costs = {name: shape[0] + math.prod(shape[1:]) for name, shape in shapes.items()}
    full = {name: min(shape[0], math.prod(shape[1:])) for name, shape in shapes.items()}
    budget = sum(costs[name] * min(rank, full[name]) for name in shapes)
    ladders = {name: _ladder(config, full[name]) for name in shapes}

    def at(scale: float) -> dict[str, int]:
        return {n: max((r for r in ladders[n] if r <= scale * asked[n]), default=ladders[n][0]) for n in shapes}

    def price(ranks: Mapping[str, int]) -> int:
        return sum(costs[name] * ranks[name] for name in ranks)

    if price(at(0.0)) > budget:
        do = f"lower rank_policy.minimum or raise layer.skip.rank above {rank}"
        raise QartsrError("the minimum ranks exceed the budget", "method.rank_policy", do)
    low, high = 0.0, float(2 * max([1, *full.values()]))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if price(at(middle)) <= budget else (low, middle)
    ranks, left = at(low), budget - price(at(low))
    for name in sorted(shapes, key=lambda n: (ranks[n] - low * asked[n], n)):  # who was cut short most comes first
        for step in (r for r in ladders[name] if r > ranks[name]):
            if costs[name] * (step - ranks[name]) > left:
                break
            left -= costs[name] * (step - ranks[name])
            ranks[name] = step
    return ranks


def _ladder(config: STCAConfig, full: int) -> list[int]:
    """The ranks a layer may have, ascending."""
    first, last = min(config.minimum, full), min(config.maximum, full)
    return sorted({first, last, *(r for r in range(config.multiple, last, config.multiple) if r > first)})
