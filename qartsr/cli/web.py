"""``qartsr web``: a page to try and compare models on."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from qartsr.cli.command import SOURCE, Command, pixels, whole
from qartsr.errors import QartsrError

HOST = "127.0.0.1"
_FP = Path("build/retrained")


def _arguments(parser: argparse.ArgumentParser) -> None:
    what = f"{SOURCE} (default: build/packages/*, and what is registered)"
    parser.add_argument("--model", metavar="SOURCE", nargs="+", action="extend", default=[], help=what)
    fp = f"the floating-point model to compare with (default: {_FP}, where there is one)"
    parser.add_argument("--fp", metavar="FOLDER", help=fp)
    host = f"who may come: {HOST} is this machine, 0.0.0.0 everybody (default: {HOST})"
    parser.add_argument("--host", metavar="ADDRESS", default=HOST, help=host)
    parser.add_argument("--port", metavar="N", type=whole(1, 65535), help="(default: the first free one from 7860 on)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--engine", metavar="NAME", default="auto", help="what executes the models (default: auto)")
    limits = parser.add_argument_group("what one visitor may ask for")
    for flag, value, kind, words in (
        ("--max-pixels", 1 << 20, pixels, "of a picture"),
        ("--max-models", 4, whole(1, 64), "side by side"),
        ("--max-files", 50, whole(1, 100_000), "of a batch"),
        ("--max-frames", 500, whole(1, 10_000_000), "of a clip"),
        ("--max-waiting", 8, whole(1, 100_000), "visitors in the queue"),
    ):
        limits.add_argument(flag, metavar="N", type=kind, default=value, help=f"{words} (default: {value})")
    gate = "visitors may make a version champion, if it passes the gate of this file; else the page only reads"
    parser.add_argument("--allow-promote", metavar="PARAMS", type=Path, help=gate)


def _run(args: argparse.Namespace) -> None:
    import gradio  # noqa: F401  # whoever has none need not wait for torch, or for a model to arrive, to learn that

    from qartsr.api import OneStepSRPipeline
    from qartsr.upscale.model_source import check_source

    for source in [*args.model, *([args.fp] if args.fp else [])]:
        check_source(source)
    if args.allow_promote:
        from qartsr.config import load_params

        load_params(args.allow_promote)
    from qartsr.web.compare import Limits, Models
    from qartsr.web.page import Offer, serve

    fp = args.fp or (str(_FP) if _FP.is_dir() else None)
    limits = Limits(args.max_pixels, args.max_models, args.max_files, args.max_frames, args.max_waiting)
    load = partial(OneStepSRPipeline.from_pretrained, device=args.device, engine=args.engine)
    promote = None if args.allow_promote is None else partial(_promote, args.allow_promote)
    try:
        serve(Offer(Models(load), args.model, fp, limits, promote), args.host, args.port)
    except OSError as error:  # gradio's sentence is about ports
        where = f"{args.host}:{args.port or 7860}"
        raise QartsrError("cannot listen there", where, "choose another --host or --port") from error


def _promote(file: Path, uri: str) -> str:
    """Make the version at ``models:/qartsr-PROFILE-BITS/N`` champion. Raises QartsrError."""
    from qartsr.config import load_params
    from qartsr.release import model_name, promote

    params = load_params(file)
    name, _, number = uri.removeprefix("models:/").rpartition("/")
    known = {model_name(params.profile, bits): bits for bits in params.bits}
    if name not in known:
        raise QartsrError(f"is no model of profile {params.profile}", uri or "the version", f"see {file}")
    return str(promote(params.profile, known[name], params.promote, int(number)))


WEB = Command("web", "show a page to try and compare models on", _arguments, _run)
