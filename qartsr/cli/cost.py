"""`qartsr cost`: the paper's Table 2, and the bytes of the real files, from the architecture alone."""

from __future__ import annotations

import argparse
import json
from typing import Any

_BITS = ("w4a4", "w3a3", "w2a2")


def register(subparsers: Any) -> None:
    """Add the command to ``ArgumentParser.add_subparsers()``; ``args.run(args)`` runs it."""
    parser = subparsers.add_parser("cost", help="parameters, operations and bytes of a model", description=__doc__)
    parser.add_argument("--model", default="osediff", help="osediff, sample or a model folder (default: osediff)")
    parser.add_argument("--size", type=int, default=512, help="side of the square output in pixels (default: 512)")
    parser.add_argument("--bits", nargs="+", default=_BITS, help=f"bit-widths (default: {' '.join(_BITS)})")
    parser.add_argument("--rank", type=_rank, default=4, help="of the low-rank branches, 0 to 1024 (default: 4)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the cost. Raises QartsrError for an unknown model, bit-width or size."""
    from qartsr.config import parse_bits
    from qartsr.cost import as_text, cost_of, subject  # torch and diffusers: seconds that --help need not wait for

    bits = [parse_bits(name) for name in args.bits]
    cost = cost_of(subject(args.model), args.size, bits, args.rank)
    print(json.dumps(cost.as_json(), indent=2) if args.json else as_text(cost))


def _rank(text: str) -> int:
    if not text.isdecimal() or int(text) > 1024:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..1024")
    return int(text)
