"""From what ``from_pretrained`` is given to a path.

Upscaling knows files only. Addresses (``models:/...``) are resolved by whoever registers for their scheme;
:mod:`qartsr.api` registers the model registry, so ``from qartsr import OneStepSRPipeline`` brings it along.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from qartsr.errors import QartsrError

Resolve = Callable[[str], Path]
"""Turns an address into a local package file. Raises QartsrError."""

_RESOLVERS: dict[str, Resolve] = {}
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/")
"""At least two letters, so that a Windows drive is a path."""


def register_resolver(scheme: str, resolve: Resolve) -> None:
    """Let ``resolve`` answer for addresses that begin with ``scheme:/``; the one before it is forgotten."""
    _RESOLVERS[scheme] = resolve


def local(source: str) -> Path:
    """The path that ``source`` is or, for an address, what its resolver makes of it. Raises QartsrError."""
    match = _ADDRESS.match(source)
    if match is None:
        return Path(source)
    if match[1] not in _RESOLVERS:
        known = ", ".join(f"{scheme}:/" for scheme in sorted(_RESOLVERS)) or "none"
        do = f"give a path, or an address of a known kind (here: {known}); models:/ needs `from qartsr import ...`"
        raise QartsrError(f"nobody here can resolve {match[1]}:/ addresses", source, do)
    return _RESOLVERS[match[1]](source)
