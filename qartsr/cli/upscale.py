"""``qartsr upscale IN OUT --model SOURCE``: images four times as wide and high."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from qartsr.cli.command import Command, natural, positive
from qartsr.cli.jobs import Jobs, plan_jobs
from qartsr.cli.show import Bar, bar, say
from qartsr.errors import QartsrError

if TYPE_CHECKING:
    from PIL import Image

    from qartsr.upscale import OneStepSRPipeline

TILE, OVERLAP = 512, 64
"""Those of :mod:`qartsr.upscale`, which would load torch for the sake of a help text; a test compares them."""
_SCALE, _LISTED = 4, 5

Load = Callable[[], "OneStepSRPipeline"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN", type=Path, help="a PNG, JPEG or WebP image, or a folder of them")
    parser.add_argument("output", metavar="OUT", type=Path, help="the image to write, or a folder for all of them")
    source = "a package file, a model folder, models:/NAME@ALIAS or models:/NAME/VERSION"
    parser.add_argument("--model", metavar="SOURCE", required=True, help=source)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    tile = "side of a tile in output pixels, less needs less memory (default: %(default)s)"
    parser.add_argument("--tile", metavar="N", type=positive, default=TILE, help=tile)
    overlap = "output pixels that neighbouring tiles share at least (default: %(default)s)"
    parser.add_argument("--overlap", metavar="N", type=natural, default=OVERLAP, help=overlap)
    parser.add_argument("--threads", metavar="N", type=positive, help="CPU threads (default: what torch chooses)")


def _run(args: argparse.Namespace) -> None:
    jobs = plan_jobs(args.input, args.output)
    if jobs.ignored:
        say(f"note: left out, being no PNG, JPEG or WebP: {_some(jobs.ignored)}")
    with bar(len(jobs.files)) as drawn:
        failed = _upscale(jobs, _loader(args), drawn)
    if failed:
        what = f"{failed} of {len(jobs.files)} images failed"
        raise QartsrError(what, str(args.input), "see the sentences above, one for each")


def _loader(args: argparse.Namespace) -> Load:
    """Loads the model at its first call: an image that cannot be read need not wait for that."""
    import torch

    from qartsr.release import fetch
    from qartsr.upscale import OneStepSRPipeline

    if args.threads:
        torch.set_num_threads(args.threads)
    options = {"device": args.device, "tile": args.tile, "overlap": args.overlap}
    return cache(partial(OneStepSRPipeline.from_pretrained, args.model, resolve=fetch, **options))


def _upscale(jobs: Jobs, load: Load, drawn: Bar) -> int:
    """How many of several images failed; one image alone raises. So does what would fail for all of them."""
    failed = 0
    for source, target in jobs.files:
        drawn.begin(source.name)
        try:
            image = _image(source, target)
        except QartsrError as error:
            if len(jobs.files) == 1:
                raise
            failed += 1
            say(f"error: {error}")
            continue
        _write(source, target, image, load(), drawn)
    return failed


def _image(source: Path, target: Path) -> Image.Image:
    from qartsr.upscale import check_target, read_image

    image = read_image(source)
    check_target(target, image, _SCALE)
    return image


def _write(source: Path, target: Path, image: Image.Image, pipe: OneStepSRPipeline, drawn: Bar) -> None:
    import torch

    from qartsr.upscale import write_image

    try:
        result = pipe(image, drawn.tiles)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise QartsrError("there is not enough memory for it", str(source), "choose a smaller --tile") from error
    write_image(target, result, image)
    say(f"{target}: {result.width}x{result.height}")


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


UPSCALE = Command("upscale", "make images exactly four times as wide and high", _arguments, _run)
