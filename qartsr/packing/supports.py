"""What an engine computes of a packed layer, and the one sentence about what it does not."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from qartsr.packing.packed_layer import (
    FloatTensor,
    Hierarchical,
    InputAffine,
    InputGrid,
    InputRotation,
    InputScale,
    LowRank,
    NoLowRank,
    PackedLayer,
    PackedTensor,
    SplitInputGrid,
)
from qartsr.quantizers import OwnRange, SlicedOwn, TokenGaussian

_SAID = {
    FloatTensor: "its weight is in floating point",
    nn.Identity: "its input is in floating point",
    SplitInputGrid: "two parts of its input have ranges of their own",
    OwnRange: "its input has a range that each picture sets",
    SlicedOwn: "two parts of its input have ranges that each picture sets",
    TokenGaussian: "its input has a range that each token sets",
    InputRotation: "its input is rotated",
    Hierarchical: "its branch consists of blocks",
}


@dataclass(frozen=True)
class Supports:
    """Kinds of parts that an engine computes; a packed layer made of no others runs on it."""

    weights: tuple[type[nn.Module], ...] = (PackedTensor,)
    inputs: tuple[type[nn.Module], ...] = (InputGrid,)
    transforms: tuple[type[nn.Module], ...] = (nn.Identity, InputScale, InputAffine)
    branches: tuple[type[nn.Module], ...] = (NoLowRank, LowRank)
    groups: bool = False
    """several weight grids in one output channel"""


def unsupported_reason(layer: PackedLayer, supports: Supports) -> str | None:
    """Why ``layer`` does not run where only ``supports`` is computed, a clause about the layer; None: it runs."""
    parts = (
        (layer.weight, supports.weights),
        (layer.input, supports.inputs),
        (layer.transform, supports.transforms),
        (layer.skip, supports.branches),
    )
    for part, kinds in parts:
        if not isinstance(part, kinds):
            return _SAID.get(type(part), f"it has a {type(part).__name__}")
    if layer.spec.weight_groups > 1 and not supports.groups:
        return "groups of its weight have ranges of their own"
    return None
