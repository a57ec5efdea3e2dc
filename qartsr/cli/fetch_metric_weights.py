"""``qartsr fetch-metric-weights NAME...``: the one deliberate way to download what learned metrics read."""

from __future__ import annotations

import argparse

from qartsr.cli.command import Command
from qartsr.cli.show import say
from qartsr.errors import QartsrError


def _arguments(parser: argparse.ArgumentParser) -> None:
    names = "a learned metric, for example lpips, or lpips-vgg for the training loss"
    parser.add_argument("names", metavar="NAME", nargs="+", help=names)


def _run(args: argparse.Namespace) -> None:
    from qartsr.metrics import FETCHABLE, availability, fetch

    for name in args.names:  # all of them before the first download
        if name not in FETCHABLE:
            known = ", ".join(FETCHABLE)
            raise QartsrError(f"{name!r} has no weights to fetch", "fetch-metric-weights", f"choose from {known}")
    for name in args.names:
        if not availability(name).available:
            say(f"fetching the weights of {name} ...")
            fetch(name)
        print(f"the weights of {name} are on this machine")


FETCH_METRIC_WEIGHTS = Command(
    "fetch-metric-weights", "download the weights that learned metrics read", _arguments, _run
)
