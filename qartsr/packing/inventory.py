"""What the bytes of a package are spent on."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from qartsr.packing.header import Head, Header, read_head

_ENDINGS = {
    "weight codes": (".weight.codes",),
    "weight grids": (".weight.grid",),
    "biases": (".bias.codes", ".bias.grid", ".bias.value"),
    "input grids": (".input.grid",),
    "transforms": (".transform.phi", ".transform.delta"),
    "low-rank branches": (".skip.left", ".skip.right", ".skip.block_left", ".skip.block_right"),
    "unquantized weights": (".weight.value",),
}
_REST = "norms, context, layers kept in float"


class Inventory(NamedTuple):
    """Sizes of a package."""

    header: Header
    components: dict[str, int]
    """bytes by component; they sum to the size of the file"""
    parameters: int
    """values in the weights of the quantized layers"""

    @property
    def total(self) -> int:
        """Bytes of the file."""
        return sum(self.components.values())

    @property
    def bits_per_weight(self) -> float:
        """All bytes that serve the quantized weights (codes, grids, transforms, branches), per value of them."""
        served = ("weight codes", "weight grids", "transforms", "low-rank branches", "unquantized weights")
        return 8 * sum(self.components[name] for name in served) / max(self.parameters, 1)


def inspect(path: Path) -> Inventory:
    """Verify a package and account for its bytes. Raises QartsrError, see :func:`qartsr.packing.header.read_head`."""
    head = read_head(path)
    parameters = sum(math.prod(spec.shape) for spec in head.header.specs().values())
    return Inventory(head.header, _components(head), parameters)


def _components(head: Head) -> dict[str, int]:
    sizes, layers = dict.fromkeys((*_ENDINGS, _REST), 0), head.header.specs().keys()
    for name, entry in head.table.items():
        start, end = entry["data_offsets"]
        sizes[_component(name, layers)] += end - start
    return {**sizes, "header": head.size}


def _component(name: str, layers: Collection[str]) -> str:
    for component, endings in _ENDINGS.items():
        for ending in endings:
            if name.removesuffix(ending) in layers:
                return component
    return _REST
