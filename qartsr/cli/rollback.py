"""``qartsr rollback BITS``: the champion before this one is champion again."""

from __future__ import annotations

import argparse
from pathlib import Path

from qartsr.cli.command import Command


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bits", metavar="BITS", help="bit-width, for example w4a4")
    params = "parameters that name the profile (default: params.yaml)"
    parser.add_argument("--params", metavar="FILE", type=Path, default=Path("params.yaml"), help=params)


def _run(args: argparse.Namespace) -> None:
    from qartsr.config import load_params, parse_bits
    from qartsr.release import rollback

    bits = str(parse_bits(args.bits))
    print(rollback(load_params(args.params).profile, bits))


ROLLBACK = Command("rollback", "make the champion before this one champion again", _arguments, _run)
