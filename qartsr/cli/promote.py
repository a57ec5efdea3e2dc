"""``qartsr promote BITS``: a version becomes champion, if it passes the gate of params.yaml."""

from __future__ import annotations

import argparse
from pathlib import Path

from qartsr.cli.command import Command, version


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bits", metavar="BITS", help="bit-width, for example w4a4")
    parser.add_argument("--version", metavar="N", type=version, help="this version (default: the newest)")
    params = "parameters that name profile and gate (default: params.yaml)"
    parser.add_argument("--params", metavar="FILE", type=Path, default=Path("params.yaml"), help=params)


def _run(args: argparse.Namespace) -> None:
    from qartsr.config import load_params, parse_bits
    from qartsr.release import promote

    bits, params = str(parse_bits(args.bits)), load_params(args.params)
    print(promote(params.profile, bits, params.promote, args.version))


PROMOTE = Command("promote", "make a registered version champion, if it passes the gate", _arguments, _run)


def _rollback_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bits", metavar="BITS", help="bit-width, for example w4a4")
    params = "parameters that name the profile (default: params.yaml)"
    parser.add_argument("--params", metavar="FILE", type=Path, default=Path("params.yaml"), help=params)


def _run_rollback(args: argparse.Namespace) -> None:
    from qartsr.config import load_params, parse_bits
    from qartsr.release import rollback

    bits = str(parse_bits(args.bits))
    print(rollback(load_params(args.params).profile, bits))


ROLLBACK = Command("rollback", "make the champion before this one champion again", _rollback_arguments, _run_rollback)
