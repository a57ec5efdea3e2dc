"""What a command is, and the types its arguments share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

_THREADS = 4096
"""More than any machine has."""


class Command(NamedTuple):
    """One verb of ``qartsr``."""

    name: str
    summary: str
    """one sentence, for the list of commands and the command's own help"""
    arguments: Callable[[argparse.ArgumentParser], None]
    """declares the arguments; loads nothing, so that ``qartsr --help`` is quick"""
    run: Callable[[argparse.Namespace], None]
    """does it. Raises QartsrError"""


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Declare what every command that reads images may be told."""
    most = "read images of up to so many pixels (default: QARTSR_MAX_PIXELS, else 536870912)"
    parser.add_argument("--max-pixels", metavar="N", type=positive, help=most)


def positive(text: str) -> int:
    """A whole number above 0."""
    value = natural(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return value


def threads(text: str) -> int:
    """A number of threads that a machine can have."""
    value = positive(text)
    if value > _THREADS:
        raise argparse.ArgumentTypeError(f"{value} is above {_THREADS}")
    return value


def natural(text: str) -> int:
    """A whole number, 0 included."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is below 0")
    if value >> 63:
        raise argparse.ArgumentTypeError(f"{text[:40]} is too large")
    return value
