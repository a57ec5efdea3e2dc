"""Which layers of a model can be quantized, and which of them a pattern names."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from qartsr.errors import QartsrError
from qartsr.models import Backbone


def quantizable(model: Backbone) -> dict[str, nn.Module]:
    """Every convolution and linear layer of the model's parts still in floating point, by full name."""
    inside = tuple(f"{part}." for part in model.parts)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and name.startswith(inside)
    }


def matching(patterns: tuple[str, ...], names: Iterable[str], where: str) -> set[str]:
    """The names that any shell pattern fits. Raises QartsrError for a pattern that fits none; ``where`` names it."""
    found: set[str] = set()
    known = list(names)
    for pattern in patterns:
        fitting = {name for name in known if fnmatchcase(name, pattern)}
        if not fitting:
            raise QartsrError(f"no layer matches {pattern!r}", where, "correct the pattern or remove it")
        found |= fitting
    return found
