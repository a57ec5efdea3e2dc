"""What a command is, and the types its arguments share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import NamedTuple


class Command(NamedTuple):
    """One verb of ``qartsr``."""

    name: str
    summary: str
    """one sentence, for the list of commands and the command's own help"""
    arguments: Callable[[argparse.ArgumentParser], None]
    """declares the arguments; loads nothing, so that ``qartsr --help`` is quick"""
    run: Callable[[argparse.Namespace], None]
    """does it. Raises QartsrError"""


SOURCE = "a package file, a model folder, models:/NAME@ALIAS, models:/NAME/VERSION or hf://USER/NAME"
"""What a model may be named by, for help texts and refusals."""


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Declare what every command that reads images may be told."""
    most = "read images of up to so many pixels (default: QARTSR_MAX_PIXELS, else 536870912)"
    parser.add_argument("--max-pixels", metavar="N", type=pixels, help=most)


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number from ``least`` to ``most``; a refusal names both."""

    def read(text: str) -> int:
        digits = re.fullmatch(r"\s*[+-]?[0-9]{1,24}\s*", text)
        if digits is None or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text[:40]} is no whole number in {least}..{most}")
        return int(text)

    return read


threads = whole(1, 4096)
"""Also of other things that stand side by side: more than any machine has."""
side = whole(0, 1 << 20)
"""Pixels along one side; 0 where that means something."""
seed = whole(0, (1 << 63) - 1)
"""What torch's generators take."""
version = whole(1, (1 << 31) - 1)
"""Of a registered model: MLflow's integer."""
pixels = whole(1, 1 << 40)
"""Of one picture: a square of a million on a side."""
