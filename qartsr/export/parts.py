"""The graphs that are made of a model: encoder, denoiser and decoder one by one, or all of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import onnx

from qartsr.errors import QartsrError
from qartsr.export.graph import Graph, Ref
from qartsr.export.norms import NormWriter, plain
from qartsr.export.picture import SCALE, enlarge, finish
from qartsr.export.trace import Decoder, Denoiser, Encoder, Part, Trace, trace
from qartsr.export.write import Writer
from qartsr.models import Backbone

Size = tuple[int, int]


class PartSpec(NamedTuple):
    """A part of the model as a graph."""

    part: Part
    outputs: tuple[str, ...]
    on_latents: bool
    """input: a latent, else an image"""


PARTS = {
    "encoder": PartSpec(Encoder, ("mean", "logvar"), on_latents=False),
    "denoiser": PartSpec(Denoiser, ("noise",), on_latents=True),
    "decoder": PartSpec(Decoder, ("image",), on_latents=True),
}

_START = 64
"""A graph of varying size is traced at this many times its step."""
_VARYING, _ENLARGED = ("rows", "columns"), ("rows_x4", "columns_x4")


def write_part(model: Backbone, name: str, traced: Trace, norm: NormWriter = plain) -> onnx.ModelProto:
    """The graph of one of PARTS for inputs (1, C, H, W) of every size, of its trace by :func:`trace_part`.

    The size is to be set before it is compiled.
    Raises QartsrError for a layer without a standard form.
    """
    spec, graph = PARTS[name], Graph(settles=True)
    values = Writer(graph, traced, norm).write(graph.input("input", (1, _channels(model, name), *_VARYING)))
    for label, value, shape in zip(spec.outputs, values, _shapes(traced, None), strict=True):
        graph.output(label, value, shape)
    return graph.model({})


def build_model(model: Backbone, size: Size | None, facts: dict[str, str]) -> onnx.ModelProto:
    """The whole network, image (1, 3, H, W) in [-1, 1] -> image, not clamped; ``size`` (H, W) or None: it varies.

    Encoder, the mean of its posterior, one denoising step (QArtSR, Eq. 6), decoder; the colour fix is not part of it.
    Raises QartsrError for a size the model cannot have and for a layer without a standard form.
    """
    _check(model, size)
    graph = Graph()
    restored, shape = _network(graph, model, size, graph.input("image", (1, 3, *(size or _VARYING))))
    graph.output("restored", restored, shape)
    return graph.model(facts)


def build_picture(model: Backbone, size: Size | None, facts: dict[str, str]) -> onnx.ModelProto:
    """All that ``qartsr upscale`` does to a picture: RGB (1, 3, h, w) in [0, 1] -> (1, 3, 4 h, 4 w) in [0, 1].

    ``size`` (h, w) or None: it varies. See :mod:`qartsr.export.picture`. Raises QartsrError for a picture that the
    model cannot make in one piece and for a layer without a standard form.
    """
    graph = Graph()
    image = graph.input("image", (1, 3, *(size or _VARYING)))
    if size:
        model.facts.load.demand_fits(SCALE * size[0], SCALE * size[1])
    padded = enlarge(graph, image, size, model.facts.side_step)
    restored, _ = _network(graph, model, padded.sides, padded.image)
    shape = (1, 3, *((SCALE * side for side in size) if size else _ENLARGED))
    graph.output("restored", finish(graph, model.align, restored, padded, image, size), shape)
    return graph.model(facts)


def _network(graph: Graph, model: Backbone, size: Size | None, image: Ref) -> tuple[Ref, tuple[int | str, ...]]:
    """The network's output for ``image`` (1, 3, *size), and its shape. Raises QartsrError for a model of clips."""
    if model.facts.frames > 1:
        do = "upscale clips with `qartsr upscale`"
        raise QartsrError("a model of clips has no graph of its whole yet", "export", do)
    latent = size and (size[0] // model.facts.factor, size[1] // model.facts.factor)
    (mean, _), _ = _append(graph, model, "encoder", size, plain, image)
    z_l = graph.node("Mul", mean, model.facts.scaling)
    (predicted,), _ = _append(graph, model, "denoiser", latent, plain, z_l)
    z_h = graph.node("Div", graph.node("Sub", z_l, graph.node("Mul", predicted, model.step.noise)), model.step.signal)
    (restored,), (shape,) = _append(graph, model, "decoder", latent, plain, graph.node("Div", z_h, model.facts.scaling))
    return restored, shape


def _append(
    graph: Graph, model: Backbone, name: str, size: Size | None, norm: NormWriter, x: Ref
) -> tuple[tuple[Ref, ...], tuple[tuple[int | str, ...], ...]]:
    """The values of a part's outputs, and their shapes."""
    traced = trace_part(model, name, size)
    return Writer(graph, traced, norm).write(x), _shapes(traced, size)


def trace_part(model: Backbone, name: str, size: Size | None = None) -> Trace:
    """One of PARTS, for inputs of ``size``, or of every multiple of :func:`step` (None)."""
    multiple = 0 if size else step(model, name)
    most = model.facts.most // (model.facts.factor if PARTS[name].on_latents else 1)
    sides = size or (min(_START, most // multiple or _START) * multiple,) * 2
    return trace(model, PARTS[name].part, _channels(model, name), sides, multiple, most)


def _channels(model: Backbone, name: str) -> int:
    """Of a part's input: an image, the latents of all frames that the denoiser sees, or one latent."""
    if not PARTS[name].on_latents:
        return 3
    return model.facts.latents * (model.facts.frames if name == "denoiser" else 1)


def _shapes(traced: Trace, size: Size | None) -> tuple[tuple[int | str, ...], ...]:
    return tuple(_shape(node.meta["val"].shape, size is not None) for node in traced.outputs)


def _shape(shape: Any, known: bool) -> tuple[int | str, ...]:
    return (*map(int, shape[:2]), *((int(side) for side in shape[2:]) if known else _VARYING))


def step(model: Backbone, name: str) -> int:
    """Sides of a varying input must be multiples of this."""
    if name == "denoiser":
        return model.facts.patch
    return 1 if PARTS[name].on_latents else model.facts.factor


def _check(model: Backbone, size: Size | None) -> None:
    if size and any(side < 1 or side % model.facts.multiple for side in size):
        what = f"{size[0]}x{size[1]} is no size of this model"
        raise QartsrError(what, "size", f"choose multiples of {model.facts.multiple}")
    if size:
        model.facts.load.demand_fits(*size)
