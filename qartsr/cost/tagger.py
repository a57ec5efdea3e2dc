"""The tagger of OSEDiff's prompt path (RAM, 2306.03514, with DAPE, 2311.16518), as an operation profiler sees it.

A Swin-L at 384 x 384 (2103.14030) and a head of two cross-attention layers that scores 4585 tags. OSEDiff builds its
query, key and joint qkv layers from ``loralib``, and the profiler knows torch's own layers by exact type: those layers
are not in the published numbers, and so not here. Neither are the products of attention; their softmax is, where it
is a module.
"""

from __future__ import annotations

from typing import NamedTuple

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
