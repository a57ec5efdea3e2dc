"""A picture in, a picture out: what comes before and after the network, as nodes of its graph.

    x4    Pillow's bicubic (Keys, 1981, a = -0.5; weights that fall outside are left out and the rest sum to 1): a
          transposed convolution of columns, then of rows, each over that of ones; rounded to 8 bits after each, as
          Pillow does
    pad   the picture continued by mirroring, to the sides the network takes; sides of a few pixels are first continued
          at both ends
    fix   cut, clamp, colour fix (:mod:`qartsr.models.colour_fix`), clamp

Everything equals :func:`qartsr.upscale.upscale_image` of an 8-bit RGB picture that is no larger than a tile, up to
fp32 rounding, where sides are known; where they vary they are continued to larger multiples.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from qartsr.export.graph import Array, Graph, Operand, Ref

SCALE, NARROW, MARGIN = 4, 8, 8
"""Those of :mod:`qartsr.data.pairs` and :mod:`qartsr.upscale.enlarge`; a test compares pictures."""
_ROWS, _COLUMNS = 2, 3
_TAPS = 16
"""Output pixels that an input pixel reaches."""
_LEVELS, _RADII = 255.0, (1, 2, 4, 8, 16)
_EPSILON = 4e-5


class Padded(NamedTuple):
    """What the network is given, and where the picture is in it."""

    image: Ref
    """(1, 3, H, W) in [-1, 1], sides multiples of what was asked for"""
    lq: Ref
    """(3, 1, 4 h, 4 w): the enlarged picture in [-1, 1], continued only where it is narrow"""
    sides: tuple[int, int] | None
    """(H, W) where they are known"""


def enlarge(graph: Graph, image: Ref, size: tuple[int, int] | None, multiple: int) -> Padded:
    """``image`` (1, 3, h, w) in [0, 1], ``size`` (h, w) or None: it varies."""
    planes = graph.node("Mul", graph.node("Transpose", image, perm=[1, 0, 2, 3]), _LEVELS)
    planes = _continued(graph, planes, size)
    wider = None if size is None else tuple(side + 2 * _margin(side) for side in size)
    for axis in (_COLUMNS, _ROWS):
        planes = _bicubic(graph, planes, axis, None if wider is None else wider[axis - 2])
    lq = graph.node("Sub", graph.node("Div", planes, _LEVELS / 2), 1.0)
    padded, sides = lq, list[int]()
    for axis in (_ROWS, _COLUMNS):
        if wider:
            length = SCALE * wider[axis - 2]
            sides.append(-(-length // multiple) * multiple)
            indices: Operand = np.pad(np.arange(length), (0, sides[-1] - length), mode="reflect")
        else:
            indices = _reflected(graph, _side(graph, lq, axis), multiple)
        padded = graph.node("Gather", padded, indices, axis=axis)
    whole = (sides[0], sides[1]) if wider else None
    return Padded(graph.node("Transpose", padded, perm=[1, 0, 2, 3]), lq, whole)


def finish(graph: Graph, kind: str, restored: Ref, padded: Padded, image: Ref, size: tuple[int, int] | None) -> Ref:
    """The network's output (1, 3, H, W) -> (1, 3, 4 h, 4 w) in [0, 1]. ``kind``: the colour fix."""
    planes = graph.node("Transpose", restored, perm=[1, 0, 2, 3])
    for axis in (_ROWS, _COLUMNS):
        planes = _sliced(graph, planes, axis, 0, _side(graph, padded.lq, axis))
    planes = _FIXES[kind](graph, graph.node("Clip", planes, -1.0, 1.0), padded.lq)
    for axis in (_ROWS, _COLUMNS):
        if size is None:
            side = _side(graph, image, axis)
            margin = graph.node("Mul", _margin_of(graph, side), _whole(SCALE))
            planes = _sliced(graph, planes, axis, margin, graph.node("Add", margin, graph.node("Mul", side, _whole(4))))
        elif margin_ := SCALE * _margin(size[axis - 2]):
            planes = _sliced(graph, planes, axis, margin_, margin_ + SCALE * size[axis - 2])
    half = graph.node("Mul", graph.node("Clip", planes, -1.0, 1.0), 0.5)
    return graph.node("Transpose", graph.node("Add", half, 0.5), perm=[1, 0, 2, 3])


def _margin(side: int) -> int:
    return MARGIN if side < NARROW else 0


def _margin_of(graph: Graph, side: Ref) -> Ref:
    """(1,) int64, as :func:`_margin`."""
    return graph.node("Where", graph.node("Less", side, _whole(NARROW)), _whole(MARGIN), _whole(0))


def _continued(graph: Graph, planes: Ref, size: tuple[int, int] | None) -> Ref:
    """Narrow sides mirrored at both ends, the last pixel repeated."""
    for axis in (_ROWS, _COLUMNS):
        if size is None:
            planes = graph.node("Gather", planes, _mirrored(graph, _side(graph, planes, axis)), axis=axis)
        elif margin := _margin(size[axis - 2]):
            indices = np.pad(np.arange(size[axis - 2]), margin, mode="symmetric")
            planes = graph.node("Gather", planes, indices, axis=axis)
    return planes


def _mirrored(graph: Graph, side: Ref) -> Ref:
    """Indices -m .. n + m of a side n, m its margin, folded back: min(j, 2 n - 1 - j) with j = i mod 2 n."""
    margin = _margin_of(graph, side)
    twice = graph.node("Mul", side, _whole(2))
    folded = graph.node("Mod", _range(graph, graph.node("Neg", margin), graph.node("Add", side, margin)), twice)
    return graph.node("Min", folded, graph.node("Sub", graph.node("Sub", twice, _whole(1)), folded))


def _reflected(graph: Graph, side: Ref, multiple: int) -> Ref:
    """Indices 0 .. the next multiple, the last pixel not repeated: min(j, p - j) with j = i mod p, p = 2 n - 2."""
    period = graph.node("Sub", graph.node("Mul", side, _whole(2)), _whole(2))
    more = graph.node("Div", graph.node("Add", side, _whole(multiple - 1)), _whole(multiple))
    folded = graph.node("Mod", _range(graph, _whole(0), graph.node("Mul", more, _whole(multiple))), period)
    return graph.node("Min", folded, graph.node("Sub", period, folded))


def _range(graph: Graph, first: Operand, end: Operand) -> Ref:
    """Of (1,) int64 values."""
    return graph.node("Range", _scalar(graph, first), _scalar(graph, end), np.array(1, np.int64))


def _scalar(graph: Graph, value: Operand) -> Ref:
    return graph.node("Squeeze", value, _whole(0))


def _side(graph: Graph, x: Ref, axis: int) -> Ref:
    return graph.node("Shape", x, start=axis, end=axis + 1)


def _sliced(graph: Graph, x: Ref, axis: int, start: int | Ref, stop: int | Ref) -> Ref:
    return graph.node("Slice", x, graph.shape(start), graph.shape(stop), _whole(axis))


def _whole(value: int) -> Array:
    return np.array([value], np.int64)


def _bicubic(graph: Graph, planes: Ref, axis: int, side: int | None) -> Ref:
    """x4 along an axis of (3, 1, H, W), rounded to whole levels from 0 to 255."""
    along = [1, 1, 1, 1]
    along[axis] = _TAPS
    strides = [SCALE if axis == each else 1 for each in (_ROWS, _COLUMNS)]
    ends = [(_TAPS - SCALE) // 2 if axis == each else 0 for each in (_ROWS, _COLUMNS)]
    how: dict[str, Any] = {"strides": strides, "pads": [*ends, *ends]}
    taps = torch.from_numpy(_keys().astype(np.float32)).reshape(along)
    shape: list[int | Ref] = [1, 1, 1, 1]
    shape[axis] = _side(graph, planes, axis) if side is None else side
    ones = graph.node("Expand", np.ones((1, 1, 1, 1), np.float32), graph.shape(*shape))
    total = graph.node("ConvTranspose", ones, taps, **how)
    larger = graph.node("Div", graph.node("ConvTranspose", planes, taps, **how), total)
    return graph.node("Clip", graph.node("Floor", graph.node("Add", larger, 0.5)), 0.0, _LEVELS)


def _keys() -> Array:
    """Weight of an input pixel in the output pixels -6 .. 9 beside its own first one."""
    x = np.abs((np.arange(_TAPS) - (_TAPS - SCALE) // 2 + 0.5) / SCALE - 0.5)
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _none(graph: Graph, image: Ref, lq: Ref) -> Ref:
    return image


def _wavelet(graph: Graph, image: Ref, lq: Ref) -> Ref:
    """``image`` + five a-trous blurs of ``lq - image``."""
    low = graph.node("Sub", lq, image)
    line = np.array([1, 2, 1], np.float32)
    kernel = torch.from_numpy(np.outer(line, line)[None, None] / 16)
    for radius in _RADII:
        ends = np.array([0, 0, radius, radius] * 2, np.int64)
        low = graph.node("Conv", graph.node("Pad", low, ends, mode="edge"), kernel, dilations=[radius, radius])
    return graph.node("Add", image, low)


def _adain(graph: Graph, image: Ref, lq: Ref) -> Ref:
    (mean, deviation), (their_mean, their_deviation) = (_moments(graph, each) for each in (image, lq))
    scaled = graph.node("Div", graph.node("Sub", image, mean), deviation)
    return graph.node("Add", graph.node("Mul", scaled, their_deviation), their_mean)


def _moments(graph: Graph, planes: Ref) -> tuple[Ref, Ref]:
    """Mean and standard deviation, (3, 1, 1, 1), of unbiased variance."""
    axes = np.array([2, 3], np.int64)
    mean = graph.node("ReduceMean", planes, axes)
    difference = graph.node("Sub", planes, mean)
    total = graph.node("ReduceSum", graph.node("Mul", difference, difference), axes)
    sides = graph.node("Mul", _side(graph, planes, _ROWS), _side(graph, planes, _COLUMNS))
    count = graph.node("Cast", graph.node("Sub", sides, _whole(1)), to=1)
    variance = graph.node("Div", total, graph.node("Reshape", count, np.array([1, 1, 1, 1], np.int64)))
    return mean, graph.node("Sqrt", graph.node("Add", variance, _EPSILON))


_FIXES = {"none": _none, "wavelet": _wavelet, "adain": _adain}
