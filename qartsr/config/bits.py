"""Bit-width names: ``w4a4`` is 4-bit weights and 4-bit activations."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

from qartsr.errors import QartsrError

_PATTERN = re.compile(r"w([2-8])a([2-8])")


class Bits(NamedTuple):
    """Bits of weights and of activations, each 2 to 8."""

    weight: int
    input: int

    def __str__(self) -> str:
        return f"w{self.weight}a{self.input}"


def parse_bits(name: str) -> Bits:
    """``"w4a4"`` -> ``Bits(4, 4)``. Raises QartsrError for anything but ``w{2..8}a{2..8}``."""
    match = _PATTERN.fullmatch(name)
    if match is None:
        raise QartsrError(f"unknown bit-width {name!r}", "bits", "write w{2..8}a{2..8}, for example w4a4")
    return Bits(int(match[1]), int(match[2]))


def _known(name: str) -> str:
    try:
        return str(parse_bits(name))
    except QartsrError as error:
        raise ValueError(f"{error.what}; {error.do}") from error


BitName = Annotated[str, AfterValidator(_known)]
"""The name of a bit-width in a configuration."""
