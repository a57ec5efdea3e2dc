"""``qartsr serve SOURCE``: a model behind HTTP."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qartsr.cli.command import SOURCE, Command, pixels, side, threads, whole
from qartsr.errors import QartsrError

if TYPE_CHECKING:
    from qartsr.api import OneStepSRPipeline

TOKEN = "QARTSR_TOKEN"
_PIXELS, _WAITING = ("QARTSR_MAX_PIXELS", 1 << 22), ("QARTSR_MAX_WAITING", 64)
"""Variable and default; those of :mod:`qartsr.server.limits`, which a help text need not load; a test compares."""
_MEGABYTES, _SECONDS = 64, 600


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=whole(0, 65535), default=8080, help="0: any that is free (default: 8080)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--engine", metavar="NAME", default="auto", help="as of `qartsr upscale` (default: auto)")
    parser.add_argument("-t", "--tile", metavar="N", type=side, help="as of `qartsr upscale`")
    parser.add_argument("--threads", metavar="N", type=threads, help="CPU threads (default: one for each processor)")
    limits = parser.add_argument_group("limits")
    most = f"of one request, else status 413 (default: {_PIXELS[0]}, else {_PIXELS[1]})"
    limits.add_argument("--max-pixels", metavar="N", type=pixels, help=most)
    waiting = f"requests that wait, else status 429 (default: {_WAITING[0]}, else {_WAITING[1]})"
    limits.add_argument("--max-waiting", metavar="N", type=whole(0, 1_000_000), help=waiting)
    size = f"of a body in MB, else status 413 (default: {_MEGABYTES})"
    limits.add_argument("--max-megabytes", metavar="N", type=whole(1, 1 << 20), default=_MEGABYTES, help=size)
    seconds = f"until an answer, else status 504 (default: {_SECONDS})"
    limits.add_argument("--timeout", metavar="SECONDS", type=whole(1, 1_000_000), default=_SECONDS, help=seconds)
    token = f"file with the token that requests must bear (default: {TOKEN}; without one anybody may ask)"
    parser.add_argument("--token-file", metavar="FILE", type=Path, help=token)
    parser.add_argument("--log", choices=("text", "json"), default="text", help="lines of log (default: text)")


def _run(args: argparse.Namespace) -> None:
    from qartsr.server import Limits
    from qartsr.server.run import serve
    from qartsr.upscale.model_source import check_source, is_address

    most = args.max_pixels or _number(*_PIXELS)
    waiting = _number(*_WAITING) if args.max_waiting is None else args.max_waiting
    limits = Limits(most, waiting, args.max_megabytes << 20, args.timeout)
    if not is_address(args.source):  # what an address names is fetched while /healthz answers already
        check_source(args.source)
    serve(partial(_load, args), args.source, args.host, args.port, limits, _token(args.token_file), args.log)


def _load(args: argparse.Namespace) -> OneStepSRPipeline:
    from qartsr.api import OneStepSRPipeline

    return OneStepSRPipeline.from_pretrained(
        args.source, device=args.device, engine=args.engine, tile=args.tile, threads=args.threads or 0
    )


def _number(variable: str, default: int) -> int:
    told = os.environ.get(variable, "").strip()
    if told and not told.isdecimal():
        raise QartsrError(f"{told[:40]!r} is no number", variable, f"set it to a number such as {default}")
    return int(told) if told else default


def _token(file: Path | None) -> str:
    if file is None:
        return os.environ.get(TOKEN, "").strip()
    from qartsr.files import reading

    with reading(file):
        token = file.read_text(encoding="utf-8").strip()
    if not token:
        raise QartsrError("is empty", str(file), "write the token into it")
    return token


SERVE = Command("serve", "serve a model over HTTP, with limits and metrics", _arguments, _run)
