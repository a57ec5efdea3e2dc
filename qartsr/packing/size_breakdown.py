"""What the bytes of a package are spent on: by component of the model, and by kind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from torch import nn

from qartsr.artifact.graphs import TENSOR
from qartsr.artifact.header import Header
from qartsr.models import Backbone, Constant
from qartsr.packing.package import open_package
from qartsr.packing.packed_layer import PackedLayer
from qartsr.packing.structure import unpacked

HEADER, GRAPHS = "header", "graphs"
_PARTS = {
    "weight.codes": "weight codes",
    "weight.grid": "weight grids",
    "bias.codes": "biases",
    "bias.grid": "biases",
    "bias.value": "biases",
    "input.grid": "input grids",
    "transform.phi": "transforms",
    "transform.delta": "transforms",
    "skip.left": "low-rank branches",
    "skip.right": "low-rank branches",
    "skip.block_left": "low-rank branches",
    "skip.block_right": "low-rank branches",
    "weight.value": "unquantized weights",
}
"""Tensors of a packed layer."""
_CONSTANTS, _NORMS, _CONTEXT, _FLOAT = "folded constants", "norms", "context", "layers kept in float"
KINDS = (*dict.fromkeys(_PARTS.values()), _CONSTANTS, _NORMS, _CONTEXT, _FLOAT, GRAPHS, HEADER)
_SERVING = ("weight codes", "weight grids", "transforms", "low-rank branches", "unquantized weights")


class Inventory(NamedTuple):
    """Sizes of a package."""

    header: Header
    sizes: dict[str, dict[str, int]]
    """bytes by component and kind, component ``header``: the head and the graphs; their sum is the file"""
    parameters: int
    """values in the weights of the quantized layers"""
    fp16_bytes: int
    """what the weights of the floating-point model take in 16 bits, folded layers included, the prompt not"""

    @property
    def components(self) -> dict[str, int]:
        """Bytes by component."""
        return {component: sum(kinds.values()) for component, kinds in self.sizes.items()}

    @property
    def kinds(self) -> dict[str, int]:
        """Bytes by kind."""
        return {kind: sum(kinds[kind] for kinds in self.sizes.values()) for kind in KINDS}

    @property
    def total(self) -> int:
        """Bytes of the file."""
        return sum(self.components.values())

    @property
    def times_smaller(self) -> float:
        """Ratio of ``fp16_bytes`` to the file."""
        return self.fp16_bytes / self.total

    @property
    def bits_per_weight(self) -> float:
        """All bytes that serve the quantized weights (codes, grids, transforms, branches), per value of them."""
        kinds = self.kinds
        return 8 * sum(kinds[name] for name in _SERVING) / max(self.parameters, 1)


def inspect(path: Path) -> Inventory:
    """Verify a package and account for its bytes; no tensor is read. Raises QartsrError, see :func:`open_package`."""
    head, model = open_package(path)
    sizes = {component: dict.fromkeys(KINDS, 0) for component in (*model.components, HEADER)}
    graphs = head.table.pop(TENSOR).size if TENSOR in head.table else 0
    for name, entry in head.table.items():
        sizes[_component(model, name)][_kind(model, name)] += entry.size
    sizes[HEADER] |= {HEADER: head.size, GRAPHS: graphs}
    parameters = sum(math.prod(spec.shape) for spec in head.header.specs().values())
    weights = sum(value.numel() for value in unpacked(head.header, str(path)).parameters())
    return Inventory(head.header, sizes, parameters, 2 * weights)


def _component(model: Backbone, name: str) -> str:
    return next(component for component, prefixes in model.components.items() if name.startswith(prefixes))


def _kind(model: Backbone, name: str) -> str:
    owner, _, part = name.rpartition(".")
    layer, _, group = owner.rpartition(".")
    if layer and isinstance(model.get_submodule(layer), PackedLayer):
        return _PARTS[f"{group}.{part}"]
    module = model.get_submodule(owner)
    kinds: dict[type[nn.Module], str] = {Constant: _CONSTANTS, nn.GroupNorm: _NORMS, nn.LayerNorm: _NORMS}
    return kinds.get(type(module), _FLOAT) if owner else _CONTEXT
