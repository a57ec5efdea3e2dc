"""How Table 2 counts: what an operation profiler saw of the model, times bits / 32 (docs/cost.md).

The profiler (thop, PassionSR's Table 1) knows convolutions, linear layers and layer norms by exact type. It does not
see products of attention, group norms and embeddings, nor layers of other classes: of the text encoder only the MLPs
are torch's own, of the tagger's layers those without LoRA. A parameter or operation of b bits counts b / 32.

The tagger of OSEDiff's prompt path (RAM, 2306.03514, with DAPE, 2311.16518) is counted as an operation profiler sees
it: a Swin-L at 384 x 384 (2103.14030) and a head of two cross-attention layers that scores 4585 tags. OSEDiff builds
its query, key and joint qkv layers from ``loralib``, and the profiler knows torch's own layers by exact type: those
layers are not in the published numbers, and so not here. Neither are the products of attention; their softmax is,
where it is a module.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from qartsr.branches import branch_layout
from qartsr.config import Bits
from qartsr.cost.trace import ATTENTION, LAYER_NORM, Work
from qartsr.quantize import LayerPlan, Plan

RESOLUTION, PATCH, WIDTH, WINDOW = 384, 4, 192, 12
DEPTHS, HEADS = (2, 2, 18, 2), (6, 12, 24, 48)
TAGS, TAG_WIDTH, TAG_LAYERS, IMAGE_WIDTH = 4585, 768, 2, 512
_NORM, _SOFTMAX = 4, 3
"""The profiler's operations per value of a layer norm, and (less one per row) of a softmax."""


class Tally(NamedTuple):
    """Parameters and multiply-accumulates."""

    params: int
    macs: int


def _sum(*parts: Tally) -> Tally:
    return Tally(sum(part.params for part in parts), sum(part.macs for part in parts))


def _linear(inputs: int, outputs: int, rows: int, bias: bool = True) -> Tally:
    return Tally(inputs * outputs + bias * outputs, inputs * outputs * rows)


def _norm(width: int, rows: int) -> Tally:
    return Tally(2 * width, _NORM * width * rows)


def swin() -> Tally:
    """The image encoder, without its qkv layers."""
    tokens = (RESOLUTION // PATCH) ** 2
    found = [_linear(3 * PATCH**2, WIDTH, tokens), _norm(WIDTH, tokens)]
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        width = WIDTH * 2**stage
        found += [_block(width, tokens, heads)] * depth
        if stage < len(DEPTHS) - 1:
            tokens //= 4
            found += [_norm(4 * width, tokens), _linear(4 * width, 2 * width, tokens, bias=False)]
    return _sum(*found, _norm(WIDTH * 2 ** (len(DEPTHS) - 1), tokens))


def _block(width: int, tokens: int, heads: int) -> Tally:
    window = WINDOW**2
    softmax = Tally(0, tokens * heads * (_SOFTMAX * window - 1))
    mlp = (_linear(width, 4 * width, tokens), _linear(4 * width, width, tokens))
    return _sum(_norm(width, tokens), softmax, _linear(width, width, tokens), _norm(width, tokens), *mlp)


def head() -> Tally:
    """The projection of the image and the scoring of the tags, without query and key layers."""
    tokens = (RESOLUTION // PATCH // 2 ** (len(DEPTHS) - 1)) ** 2 + 1  # and their mean
    layer = _sum(
        _linear(IMAGE_WIDTH, TAG_WIDTH, tokens),
        _linear(TAG_WIDTH, TAG_WIDTH, TAGS),
        _linear(TAG_WIDTH, 4 * TAG_WIDTH, TAGS),
        _linear(4 * TAG_WIDTH, TAG_WIDTH, TAGS),
        *[_norm(TAG_WIDTH, TAGS)] * 2,
    )
    ends = (
        _linear(WIDTH * 2 ** (len(DEPTHS) - 1), IMAGE_WIDTH, tokens),
        _linear(IMAGE_WIDTH, TAG_WIDTH, TAGS),
        _linear(TAG_WIDTH, 1, TAGS),
    )
    return _sum(*ends, *[layer] * TAG_LAYERS)


def tagger() -> Tally:
    """Both."""
    return _sum(swin(), head())


_FULL, _HALF = 32, 16
_NORM = 4
"""The profiler's operations per value of a layer norm."""


class Line(NamedTuple):
    """A part of a row, in parameters and multiply-accumulates of 32 bits."""

    name: str
    params: float
    macs: float


def profiled(works: Iterable[Work]) -> Tally:
    """Parameters and multiply-accumulates that the profiler reports for the parts of a model."""
    seen = [work for work in works if work.quantizable or work.kind == LAYER_NORM]
    norms = sum(work.elements for work in seen if work.kind == LAYER_NORM)
    return Tally(sum(work.params for work in seen), sum(work.macs for work in seen) + _NORM * norms)


def full_precision(titles: Mapping[str, str], model: Iterable[Work], text_encoder: Iterable[Work]) -> tuple[Line, ...]:
    """The floating-point row, parts by ``titles`` (:attr:`Backbone.titles`).

    OSEDiff's prompt path, where ``text_encoder`` is not empty, as the profiler sees it.
    """
    works, text = list(model), list(text_encoder)
    lines = [
        Line(title, *profiled(work for work in works if work.name.startswith(f"{part}.")))
        for part, title in titles.items()
    ]
    if text:
        mlps = [work for work in text if ".mlp." in work.name]
        lines += [
            Line("tagger (RAM with DAPE), less its LoRA layers", *tagger()),
            Line("text encoder, MLPs only", sum(work.params for work in mlps), sum(work.macs for work in mlps)),
        ]
    return tuple(lines)


def quantized(titles: Iterable[str], works: Iterable[Work], plan: Plan, bits: Bits) -> tuple[Line, ...]:
    """A quantized row; ``titles``: of the parts. Table 2 leaves out what the low-rank branches do, :func:`branches`."""
    layers = _by_name(works)
    total, branch = profiled(layers.values()), branches(layers.values(), plan)
    kept = [_kept(layers[entry.name], entry, bits) for entry in plan.layers]
    channels = sum(sum(layers[entry.name].shape[:2]) for entry in plan.layers if not entry.float)
    return (
        Line(f"{' and '.join(titles)} at {bits}", total.params * bits.weight / _FULL, total.macs * max(bits) / _FULL),
        Line("layers kept at more bits", sum(params for params, _ in kept), sum(macs for _, macs in kept)),
        Line("low-rank branches, 16 bits", branch.params * _HALF / _FULL, 0.0),
        Line("phi and weight scales, 16 bits", channels * _HALF / _FULL, 0.0),
    )


def branches(works: Iterable[Work], plan: Plan) -> Tally:
    """Parameters and multiply-accumulates of all low-rank branches as they run: L2 like the layer, L1 pointwise."""
    layers = _by_name(works)
    found = [_branch(layers[entry.name], entry) for entry in plan.layers if not entry.float]
    return Tally(sum(tally.params for tally in found), sum(tally.macs for tally in found))


def _by_name(works: Iterable[Work]) -> dict[str, Work]:
    return {work.name: work for work in works if work.kind != ATTENTION}


def _branch(work: Work, entry: LayerPlan) -> Tally:
    outputs, inputs = work.shape[0], math.prod(work.shape[1:])
    rank, rows, columns = branch_layout(entry.recipe.skip, work.shape)
    values = rank * (outputs + inputs) + rows * inputs + outputs * columns
    return Tally(values, values * (work.macs // (outputs * inputs)))


def _kept(work: Work, layer: LayerPlan, bits: Bits) -> tuple[float, float]:
    """What a layer costs beyond the row's own bits."""
    weight, operation = _bits(layer)
    return work.params * (weight - bits.weight) / _FULL, work.macs * (operation - max(bits)) / _FULL


def _bits(layer: LayerPlan) -> tuple[int, int]:
    """Bits of the weight, and of the operation: those of its wider operand."""
    if layer.float:
        return _FULL, _FULL
    weight = layer.weight_bits if layer.recipe.weight.kind != "none" else _FULL
    return weight, max(weight, layer.input_bits if layer.recipe.input.kind != "none" else _FULL)
