"""``qartsr cost``: the paper's Table 2, and the bytes of the real files, from the architecture alone."""

from __future__ import annotations

import argparse
import json

from qartsr.cli.command import Command, whole

_BITS = ("w4a4", "w3a3", "w2a2")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="osediff", help="osediff, dloral, sample, tsdsr or a model folder (default: osediff)"
    )
    parser.add_argument(
        "--size", type=whole(1, 1 << 16), default=512, help="side of the square output, pixels (default: 512)"
    )
    parser.add_argument("--bits", nargs="+", default=_BITS, help=f"bit-widths (default: {' '.join(_BITS)})")
    parser.add_argument(
        "--rank", type=whole(0, 1024), default=4, help="of the low-rank branches, 0 to 1024 (default: 4)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _run(args: argparse.Namespace) -> None:
    from qartsr.config import parse_bits
    from qartsr.cost import as_text, cost_of, subject  # torch and diffusers: seconds that --help need not wait for

    bits = [parse_bits(name) for name in args.bits]
    cost = cost_of(subject(args.model), args.size, bits, args.rank)
    print(json.dumps(cost.as_json(), indent=2) if args.json else as_text(cost))


COST = Command("cost", "count parameters, operations and bytes of a model", _arguments, _run)
