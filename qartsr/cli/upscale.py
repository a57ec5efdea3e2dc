"""``qartsr upscale IN OUT --model SOURCE`` or ``--lora FILE``: images and clips four times as wide and high."""

from __future__ import annotations

import argparse
import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from qartsr.cli.clip import add_clip_options, demand_no_clip_options, run_clip, wants_clip
from qartsr.cli.command import Command, add_image_options, natural, positive
from qartsr.cli.jobs import Jobs, plan_jobs
from qartsr.cli.osediff_options import add_options, given, osediff_options
from qartsr.cli.show import Bar, bar, say, some
from qartsr.errors import QartsrError

if TYPE_CHECKING:
    from qartsr.api import OneStepSRPipeline
    from qartsr.images import Picture
    from qartsr.upscale.clip import ClipOptions, ClipReport, ClipResult
    from qartsr.upscale.osediff import OSEDiffPipeline

TILE, OVERLAP = 512, 64
"""Those of :mod:`qartsr.upscale`, which would load torch for the sake of a help text; a test compares them."""
_SCALE = 4
_NO_MEMORY = re.compile("out of memory|allocate memory")
"""In torch's words, for a GPU and for the CPU; each is a RuntimeError."""

_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What stops one file from being written stops all."""

Load = Callable[[], "OneStepSRPipeline | OSEDiffPipeline"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN", type=Path, help="an image, a video file, or a folder of images")
    parser.add_argument(
        "output", metavar="OUT", type=Path, help="the image or clip to write, or a folder for all of them, or of frames"
    )
    source = "a package file, a model folder, models:/NAME@ALIAS or models:/NAME/VERSION"
    parser.add_argument("--model", metavar="SOURCE", help=source)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    tile = f"side of a tile in output pixels, less needs less memory (default: {TILE})"
    parser.add_argument("--tile", metavar="N", type=positive, help=tile)
    overlap = f"output pixels that neighbouring tiles share at least (default: {OVERLAP})"
    parser.add_argument("--overlap", metavar="N", type=natural, help=overlap)
    engine = "what executes the model; an unknown name lists them, and a given one says why (default: auto)"
    parser.add_argument("--engine", metavar="NAME", help=engine)
    parser.add_argument("--threads", metavar="N", type=positive, help="CPU threads (default: what torch chooses)")
    add_image_options(parser)
    strip = "leave out EXIF (date, place, camera), XMP, colour profile and all else that is no pixel"
    parser.add_argument("--strip-metadata", action="store_true", help=strip)
    add_clip_options(parser)
    add_options(parser)


def _run(args: argparse.Namespace) -> None:
    _demand_one_model(args)
    if wants_clip(args.input, args.output):
        run_clip(args.input, args.output, args, partial(_clip, args))
        return
    demand_no_clip_options(args)
    jobs = plan_jobs(args.input, args.output)
    if jobs.ignored:
        say(f"note: left out, being no images: {some(jobs.ignored)}")
    with bar(len(jobs.files)) as drawn:
        failed = _upscale(jobs, _loader(args), drawn, args)
    if failed:
        what = f"{failed} of {len(jobs.files)} images failed"
        raise QartsrError(what, str(args.input), "see the sentences above, one for each")


def _clip(args: argparse.Namespace, options: ClipOptions, report: ClipReport) -> ClipResult:
    with _enough_memory(args.input):
        return _loader(args)().upscale_clip(args.input, args.output, **options._asdict(), report=report)


def _demand_one_model(args: argparse.Namespace) -> None:
    """One source of the model, and only the options that go with it."""
    if bool(args.model) == bool(args.lora):
        what = "both --model and --lora are given" if args.model else "neither --model nor --lora is given"
        raise QartsrError(what, "qartsr upscale", "name one: a package or registered model, or OSEDiff's checkpoint")
    flags = {"--tile": args.tile, "--overlap": args.overlap, "--engine": args.engine}
    ours = [flag for flag, value in flags.items() if value is not None]
    source, misplaced, do = ("--lora", ours, "leave it out; --latent-tile and --latent-overlap set the tiles")
    if args.model:
        source, misplaced, do = ("--model", given(args), "leave it out, or name OSEDiff's checkpoint with --lora")
    if misplaced:
        raise QartsrError(f"{misplaced[0]} does not go with {source}", "qartsr upscale", do)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _loader(args: argparse.Namespace) -> Load:
    """Loads the model at its first call: an image that cannot be read need not wait for that."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.lora:
        from qartsr.upscale.osediff import OSEDiffPipeline

        return cache(partial(OSEDiffPipeline.load, osediff_options(args)))
    return cache(partial(_load, args))


def _load(args: argparse.Namespace) -> OneStepSRPipeline:
    from qartsr.api import OneStepSRPipeline

    tile, overlap = args.tile or TILE, _or(args.overlap, OVERLAP)
    pipe = OneStepSRPipeline.from_pretrained(
        args.model, device=args.device, engine=args.engine or "auto", tile=tile, overlap=overlap
    )
    if args.engine:
        say(f"note: engine {pipe.engine}: {pipe.reason}")
    return pipe


def _upscale(jobs: Jobs, load: Load, drawn: Bar, args: argparse.Namespace) -> int:
    """How many of several images failed; one image alone raises. So does what would fail for all of them."""
    failed = 0
    for source, target in jobs.files:
        drawn.begin(source.name)
        try:
            image = _image(source, target, args)
        except QartsrError as error:
            if len(jobs.files) == 1:
                raise
            failed += 1
            say(f"error: {error}")
            continue
        failed += _made(source, target, image, load(), drawn, args.strip_metadata, alone=len(jobs.files) == 1)
    return failed


def _image(source: Path, target: Path, args: argparse.Namespace) -> Picture:
    from qartsr.images import check_target, read_image

    image = read_image(source, upright=not args.official, max_pixels=args.max_pixels)
    check_target(target, image, _SCALE)
    return image


def _made(
    source: Path,
    target: Path,
    image: Picture,
    pipe: OneStepSRPipeline | OSEDiffPipeline,
    drawn: Bar,
    strip: bool,
    alone: bool,
) -> bool:
    """Upscale and write; True when the file cannot be written for a reason of its own."""
    from qartsr.images import write_image

    with _enough_memory(source):
        result = pipe(image, drawn.tiles)
    try:
        notes = write_image(target, result, strip=strip)
    except QartsrError as error:
        if alone or getattr(error.__cause__, "errno", None) in _HOPELESS:
            raise
        say(f"error: {error}")
        return True
    for note in (*image.notes, *notes):
        say(f"note: {source}: {note}")
    say(f"{target}: {result.width}x{result.height}")
    return False


@contextmanager
def _enough_memory(source: Path) -> Iterator[None]:
    """One sentence where there is not."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _NO_MEMORY.search(str(error)):
            raise
        do = "choose a smaller --tile (with --lora: --latent-tile), or a smaller image"
        raise QartsrError("there is not enough memory for it", str(source), do) from error


UPSCALE = Command("upscale", "make images and clips exactly four times as wide and high", _arguments, _run)
