"""The graphs of a packed model as they travel in its package: without the constants that its tensors already hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from qartsr.artifact.graphs import nodes, packed
from qartsr.artifact.spec import LayerSpec
from qartsr.artifact.values import CHANGES, Values, phase
from qartsr.export.graph import Graph, Ref
from qartsr.export.layers import input_of
from qartsr.export.norms import Norm, NormWriter, imposed, observed, plain
from qartsr.export.parts import PARTS, step, trace_part, write_part
from qartsr.models import Backbone
from qartsr.models.constants import constants
from qartsr.packing import PackedLayer

Array = NDArray[Any]
MODES: Mapping[str, NormWriter] = {"plain": plain, "imposed": imposed, "observed": observed}
_PARTS = (2, 6, 9)
"""Into how many a modulation (adaLN) falls."""
_SMALL = 64
"""Constants of so many bytes stay in the graph."""


def skeleton(model: Backbone) -> bytes:
    """What :func:`qartsr.packing.write_package` takes as ``graphs``: for inputs of every size, parts and modes.

    Raises QartsrError for a layer without a standard form.
    """
    find, norms = _Finder(model), list[dict[str, Any]]()
    models: dict[tuple[str, str], tuple[list[bytes], list[str]]] = {}
    for part in PARTS:
        small, traced = dict[bytes, str](), trace_part(model, part)
        for mode, writer in MODES.items():
            met: list[_Met] = []
            graph = write_part(model, part, traced, _listening(writer, met))
            models[part, mode] = _stripped(graph, met, find, small)
            if mode == "plain":
                norms += [_described(each.norm, part) for each in met]
    return packed({**facts(model), "norms": norms}, models)


class _Met(NamedTuple):
    """A norm, and which nodes of the graph are its."""

    norm: Norm
    begin: int
    end: int


def facts(model: Backbone) -> dict[str, Any]:
    """Numbers of :class:`qartsr.artifact.graphs.Facts`, but for norms and graphs."""
    load = model.facts.load
    return {
        "linear": load.linear,
        "square": load.square,
        "align": model.align,
        "scale": model.facts.scale,
        "factor": model.facts.factor,
        "multiple": model.facts.multiple,
        "latents": model.facts.latents,
        "frames": model.facts.frames,
        "window": load.window,
        "most": model.facts.most,
        "patch": model.facts.patch,
        "scaling": model.facts.scaling,
        "noise": model.step.noise,
        "signal": model.step.signal,
        "steps": {part: step(model, part) for part in PARTS},
    }


def _listening(writer: NormWriter, met: list[_Met]) -> NormWriter:
    def write(graph: Graph, norm: Norm, x: Ref) -> Ref:
        begin = graph.size
        found = writer(graph, norm, x)
        met.append(_Met(norm, begin, graph.size))
        return found

    return write


def _described(norm: Norm, part: str) -> dict[str, Any]:
    sides = tuple(str(side) for side in norm.sides)
    return {"name": norm.name, "groups": norm.groups, "eps": norm.eps, "part": part, "sides": sides}


def _stripped(
    model: onnx.ModelProto, met: list[_Met], find: _Finder, small: dict[bytes, str]
) -> tuple[list[bytes], list[str]]:
    """Pieces and recipes. ``small``: names of the constants that stay, which all modes share.

    Names are short, and the same in all modes where the nodes are: those of norms begin with the norm's number.
    """
    recipes, names, kept = dict[str, str](), dict[str, str](), []
    for constant in model.graph.initializer:
        recipe = find(constant.name, numpy_helper.to_array(constant))
        if recipe is None:
            label = constant.name
            constant.name = ""
            names[label] = small.setdefault(constant.SerializeToString(), f"c{len(small)}")
            kept.append(onnx.TensorProto(name=names[label]))
            kept[-1].MergeFrom(constant)
            kept[-1].name = names[label]
        else:
            names[constant.name] = recipes[constant.name] = recipe
    _rename(model, met, names)
    cuts = sorted({0, len(model.graph.node), *(each.begin for each in met), *(each.end for each in met)})
    body = [
        nodes(*(node.SerializeToString(deterministic=True) for node in model.graph.node[begin:end]))
        for begin, end in pairwise(cuts)
    ]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return [model.SerializeToString(deterministic=True), *body], list(dict.fromkeys(recipes.values()))


def _rename(model: onnx.ModelProto, met: list[_Met], names: dict[str, str]) -> None:
    """Values that nodes make; inputs and outputs of the model keep their names."""
    owner = {place: (number, each) for number, each in enumerate(met) for place in range(each.begin, each.end)}
    outputs, count = {value.name for value in model.graph.output}, 0
    inside: dict[int, int] = {}
    for place, node in enumerate(model.graph.node):
        for output in node.output:
            if output in outputs:
                continue
            if place not in owner:
                names[output], count = f"v{count}", count + 1
            elif output == owner[place][1].norm.name:
                names[output] = f"n{owner[place][0]}"
            else:
                number = owner[place][0]
                inside[number] = inside.get(number, 0) + 1
                names[output] = f"n{number}.{inside[number]}"
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        node.name = ""


class _Finder:
    """Recipes of constants; each is tried, and only what gives the very bytes is taken."""

    def __init__(self, model: Backbone) -> None:
        layers = {name: part for name, part in model.named_modules() if isinstance(part, PackedLayer)}
        self._layers = layers
        self._specs: dict[str, LayerSpec] = {name: layer.spec for name, layer in layers.items()}
        self._tensors = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
        self._value = Values(self._specs, self._tensors)
        self._known: dict[bytes, str] = {}
        tables = {recipe: value.cpu().numpy() for recipe, value in model.tables().items()}
        for recipe, value in (*tables.items(), *self._plain(), *self._parts(model)):
            self._known.setdefault(_key(value), recipe)

    def __call__(self, label: str, wanted: Array) -> str | None:
        """The recipe of a constant whose name begins with ``label``; None: there is none, or it is not worth it."""
        if wanted.nbytes <= _SMALL:
            return None
        name = re.sub(r"_\d+$", "", label)
        for recipe in (*self._of_layer(name), *self._of_value(wanted)):
            found = self._value(recipe)
            if found.shape != wanted.shape and found.size == wanted.size:
                recipe = f"{recipe}|shape {','.join(map(str, wanted.shape))}"
                found = self._value(recipe)
            if found.dtype == wanted.dtype and np.array_equal(found, wanted):
                return recipe
        return None

    def _plain(self) -> Iterator[tuple[str, Array]]:
        for name, value in self._tensors.items():
            if value.dtype == np.float32 and value.nbytes > _SMALL:
                yield f"tensor {name}", value
                if value.ndim == 2:
                    yield f"tensor {name}|turned", CHANGES["turned"](value)
                if value.shape[2:] == (3, 3):
                    for row, column in ("00", "01", "10", "11"):
                        yield f"tensor {name}|phase {row} {column}", phase(value, row, column)
        for name, spec in self._specs.items():
            if spec.weight_bits and spec.weight_groups == 1:
                yield f"scale {name}", self._value(f"scale {name}")
                yield f"scale {name}|half", self._value(f"scale {name}|half")

    def _parts(self, model: Backbone) -> Iterator[tuple[str, Array]]:
        """Of constants that take the place of layers: shifts, factors and, where 1 is added, gains."""
        for name in constants(model):
            value = self._tensors[f"{name}.value"]
            for count in _PARTS if value.ndim == 2 else ():
                for place in range(count if value.shape[1] % count == 0 else 0):
                    recipe = f"tensor {name}.value|part {place} {count}"
                    yield recipe, CHANGES["part"](value, place, count)
                    yield f"{recipe}|more", CHANGES["more"](CHANGES["part"](value, place, count))

    def _of_layer(self, label: str) -> Iterator[str]:
        owner, _, kind = label.rpartition(".")
        phases = re.fullmatch(r"(.*)\.phase(\d)(\d)", owner)
        owners = (label, owner, *(owner.removesuffix(end) for end in (".weight", ".main", ".skip")))
        layer = next((each for each in (*owners, phases[1] if phases else "") if each in self._layers), "")
        if not layer:
            return
        if kind == "codes" and self._specs[layer].weight_bits:
            base = f"codes {layer}"
            yield f"{base}|phase {phases[2]} {phases[3]}" if phases else base
            yield from (f"{base}|turned", f"odd {layer}", f"odd {layer}|turned")
        if kind == "bias":
            rest = input_of(self._layers[layer])[2]
            yield from (f"bias {layer} {rest!r}", f"bias {layer} {rest!r}|negative", f"bias {layer} 0.0")
        if kind == "sums":
            yield f"sums {layer} {input_of(self._layers[layer])[2]!r}"
        if kind in ("left", "right") and self._specs[layer].blocks[0]:
            yield from (f"{kind} {layer}", f"{kind} {layer}|turned")
        if kind == "weight":
            yield from (f"weight {layer}", f"weight {layer}|turned")

    def _of_value(self, wanted: Array) -> Iterator[str]:
        if recipe := self._known.get(_key(wanted)):
            yield recipe
        if recipe := self._known.get(_key(-wanted)):
            yield f"{recipe}|negative"
        if wanted.ndim == 4 and (recipe := self._known.get(_key(wanted.transpose(0, 2, 1, 3)))):
            yield f"{recipe}|heads {wanted.shape[1]}"


def _key(value: Array) -> bytes:
    return bytes(np.ascontiguousarray(value + 0).tobytes())  # -0 is 0
