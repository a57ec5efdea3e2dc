"""The layers of a model summed by component and by type, nothing left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from qartsr.cost.trace import Work

TEXT_ENCODER = "text encoder"


class Component(NamedTuple):
    """One component; ``runs``: whether the model needs it to upscale an image."""

    name: str
    runs: bool
    layers: dict[str, tuple[int, int]]
    """type of layer -> parameters, multiply-accumulates"""

    @property
    def params(self) -> int:
        """All parameters."""
        return sum(params for params, _ in self.layers.values())

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return sum(macs for _, macs in self.layers.values())


def components(
    places: Mapping[str, tuple[str, ...]], model: Iterable[Work], text_encoder: Iterable[Work]
) -> tuple[Component, ...]:
    """Those of ``places`` (:attr:`Backbone.components`), and the text encoder if there is any of it."""
    works, text = list(model), list(text_encoder)
    inside = [
        _component(name, True, [work for work in works if f"{work.name}.".startswith(prefixes)])
        for name, prefixes in places.items()
    ]
    return (*inside, _component(TEXT_ENCODER, False, text)) if text else tuple(inside)


def _component(name: str, runs: bool, works: Iterable[Work]) -> Component:
    layers: dict[str, tuple[int, int]] = {}
    for work in works:
        params, macs = layers.get(work.kind, (0, 0))
        layers[work.kind] = params + work.params, macs + work.macs
    return Component(name, runs, dict(sorted(layers.items(), key=lambda item: (-item[1][1], -item[1][0]))))
