"""``qartsr upscale IN ... OUT --model SOURCE`` or ``--lora FILE``: images and clips, x4 or as asked."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qartsr.cli.batch import SCALE, Outcome, PartlyFailedError, Wish, as_json, enough_memory, tell, upscale_all
from qartsr.cli.bulk import add_bulk_options, run_bulk, wants_bulk
from qartsr.cli.clip import add_clip_options, demand_no_clip_options, run_clip, wants_clip
from qartsr.cli.command import SOURCE, Command, add_image_options, side, threads, whole
from qartsr.cli.jobs import Jobs, Naming, plan_jobs
from qartsr.cli.osediff_options import add_options, given, osediff_options
from qartsr.cli.show import answer_json, bar, say, some
from qartsr.errors import QartsrError

if TYPE_CHECKING:
    from qartsr.api import OneStepSRPipeline
    from qartsr.upscale.clip import ClipOptions, ClipReport, ClipResult
    from qartsr.upscale.osediff import OSEDiffPipeline

OVERLAP, ROUNDS = 64, 2
ENGINES = ("auto", "openvino", "simulated", "triton", "integer")
"""Those of :mod:`qartsr.upscale` and :mod:`qartsr.engines`, which would load torch for a help text; a test compares."""
FORMATS = ("png", "jpg", "jpeg", "webp", "tif", "tiff", "avif")
_LOSSY = ("jpg", "jpeg", "jpe", "jfif", "jif", "webp", "avif")

Load = Callable[[], "OneStepSRPipeline | OSEDiffPipeline"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    words = "images, folders, patterns or a clip, then the image or folder to write; - is standard input or output"
    parser.add_argument("paths", metavar="PATH", nargs="*", help=words)
    more = "images, folders or patterns, as before OUT"
    parser.add_argument("-i", "--input", metavar="IN", nargs="+", action="extend", default=[], help=more)
    parser.add_argument("-o", "--output", metavar="OUT", help="what to write; every PATH is an input then")
    parser.add_argument("--model", metavar="SOURCE", help=SOURCE)
    _add_naming(parser.add_argument_group("files"))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    tile = "side of a tile in output pixels, less needs less memory, 0: no tiles (default: the cheapest that fits)"
    parser.add_argument("-t", "--tile", metavar="N", type=side, help=tile)
    overlap = f"output pixels that neighbouring tiles share at least (default: {OVERLAP})"
    parser.add_argument("--overlap", metavar="N", type=side, help=overlap)
    rounds = f"of observing what tiles share; fewer are quicker and show seams (default: {ROUNDS})"
    parser.add_argument("--rounds", metavar="N", type=whole(0, ROUNDS), help=rounds)
    engine = f"what executes the model: {', '.join(ENGINES)}; a given one says why (default: auto)"
    parser.add_argument("--engine", metavar="NAME", help=engine)
    parser.add_argument("--threads", metavar="N", type=threads, help="CPU threads (default: one for each processor)")
    add_image_options(parser)
    loud = parser.add_argument_group("messages").add_mutually_exclusive_group()
    loud.add_argument("-q", "--quiet", action="store_true", help="say only what failed; draw no bar")
    loud.add_argument("-v", "--verbose", action="store_true", help="say engine, seconds and rate too")
    parser.add_argument("--json", action="store_true", help="print what became of every image as JSON")
    add_clip_options(parser)
    add_bulk_options(parser)
    add_options(parser)


def _add_naming(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-r", "--recursive", action="store_true", help="subfolders too, kept in the output")
    group.add_argument("--suffix", metavar="TEXT", default="", help="follows the name of every file in a folder")
    form = "format of files in a folder, and of standard output (default: as the input, else png)"
    group.add_argument("-f", "--format", choices=FORMATS, help=form)
    quality = "of JPEG, AVIF and WebP, 1 to 100 (default: 95, WebP lossless)"
    group.add_argument("--quality", metavar="Q", type=whole(1, 100), help=quality)
    scale = "times as wide and high: above 4 or between, resampled after the network (default: 4)"
    group.add_argument("-s", "--outscale", metavar="S", type=_scale, default=SCALE, help=scale)
    existing = group.add_mutually_exclusive_group()
    over = "replace files that exist (default), or refuse to begin"
    existing.add_argument("--overwrite", action=argparse.BooleanOptionalAction, default=True, help=over)
    existing.add_argument("--skip-existing", action="store_true", help="leave out images whose output exists")
    strip = "leave out EXIF (date, place, camera), XMP, colour profile and all else that is no pixel"
    group.add_argument("--strip-metadata", action="store_true", help=strip)


def _scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 16:
        raise argparse.ArgumentTypeError(f"{text} is not in 0.01..16")
    return value


def _run(args: argparse.Namespace) -> None:
    words, output = _ends(args)
    _demand_one_model(args)
    if wants_bulk(words, output, args):
        run_bulk(words, output, args, _loader(args), _wish(args), _options(args))
        return
    if len(words) == 1 and wants_clip(Path(words[0]), Path(output)):
        _demand_no_image_options(args)
        run_clip(Path(words[0]), Path(output), args, partial(_clip, args, words[0], output))
        return
    demand_no_clip_options(args)
    jobs = plan_jobs(words, output, _naming(args))
    _demand_sense(args, jobs)
    if jobs.ignored and not args.quiet:
        say(f"note: left out, being no images: {some(jobs.ignored)}")
    outcomes: list[Outcome] = []

    def told(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if outcome.error is None or len(jobs.files) > 1:  # one alone ends the command with its sentence
            tell(outcome, args.quiet, args.verbose)

    with bar(len(jobs.files), args.quiet) as drawn:
        faults = upscale_all(jobs.files, _loader(args), _wish(args), drawn, told)
    _sum_up(args, jobs, outcomes)
    if faults and len(jobs.files) == 1:
        raise faults[0] from faults[0].__cause__
    if faults:
        raise PartlyFailedError(len(faults), len(jobs.files), ", ".join(words))


def _clip(args: argparse.Namespace, source: str, target: str, options: ClipOptions, report: ClipReport) -> ClipResult:
    with enough_memory(source):
        return _loader(args)().upscale_clip(source, target, **options._asdict(), report=report)


def _demand_no_image_options(args: argparse.Namespace) -> None:
    """Raise QartsrError for an option that a clip does not have."""
    flags = {
        **{"--recursive": args.recursive, "--suffix": args.suffix, "--format": args.format, "--quality": args.quality},
        **{"--outscale": args.outscale != SCALE, "--skip-existing": args.skip_existing, "--json": args.json},
    }
    for flag, value in flags.items():
        if value:
            raise QartsrError(f"{flag} is for images", "qartsr upscale", "leave it out, or name images")


def _ends(args: argparse.Namespace) -> tuple[list[str], str]:
    """Inputs and output."""
    inputs, output = [*args.input, *args.paths], args.output
    if output is None and args.paths and len(inputs) > 1:
        output = inputs.pop()
    if not inputs or not output:
        args.refuse("no output is named: IN ... OUT, or -o OUT" if inputs else "no input is named")
    return inputs, output


def _naming(args: argparse.Namespace) -> Naming:
    existing = "skip" if args.skip_existing else "replace" if args.overwrite else "refuse"
    return Naming(args.recursive, args.suffix, args.format, existing)


def _wish(args: argparse.Namespace) -> Wish:
    return Wish(args.outscale, args.format, args.quality, args.strip_metadata, not args.official, args.max_pixels)


def _demand_sense(args: argparse.Namespace, jobs: Jobs) -> None:
    """Refuse what would be refused after seconds of imports, or silently mean nothing."""
    from qartsr.upscale.model_source import is_address

    engine, device = args.engine or "auto", args.device
    if engine not in ENGINES:
        raise QartsrError(f"unknown engine {engine!r}", "engine", f"choose one of {', '.join(ENGINES)}")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise QartsrError(f"unknown device {device!r}", "device", "choose auto, cpu, cuda or cuda:N")
    if args.model and not is_address(args.model) and not Path(args.model).exists():
        raise QartsrError("cannot be read (No such file or directory)", args.model, f"give {SOURCE}")
    streamed = any(job.target is None for job in jobs.files)
    if streamed and args.json:
        raise QartsrError("both --json and the image want it", "standard output", "write the image to a file")
    if streamed and sys.stdout.isatty():
        raise QartsrError("is a terminal", "standard output", "redirect it, for example with > out.png")
    endings = {job.target.suffix[1:].lower() if job.target else args.format or "png" for job in jobs.files}
    if args.quality and endings and not endings & set(_LOSSY):
        raise QartsrError(f"{', '.join(sorted(endings))} has none", "--quality", "leave it out, or say --format jpg")


def _sum_up(args: argparse.Namespace, jobs: Jobs, outcomes: list[Outcome]) -> None:
    if jobs.skipped and not args.quiet:
        say(f"note: left out, being there already: {jobs.skipped}")
    made = [outcome for outcome in outcomes if outcome.error is None]
    if args.verbose and made:
        seconds = sum(outcome.seconds for outcome in made)
        pixels = sum(outcome.width * outcome.height for outcome in made)
        say(f"{len(made)} of {len(jobs.files)} images in {seconds:.1f} s, {pixels / 1e6 / seconds:.2f} megapixels/s")
    if args.json:
        answer_json(as_json(outcomes, jobs.skipped))


def _demand_one_model(args: argparse.Namespace) -> None:
    """One source of the model, and only the options that go with it."""
    if bool(args.model) == bool(args.lora):
        what = "both --model and --lora are given" if args.model else "neither --model nor --lora is given"
        raise QartsrError(what, "qartsr upscale", "name one: a package or registered model, or OSEDiff's checkpoint")
    flags = {"--tile": args.tile, "--overlap": args.overlap, "--rounds": args.rounds, "--engine": args.engine}
    ours = [flag for flag, value in flags.items() if value is not None]
    source, misplaced, do = ("--lora", ours, "leave it out; --latent-tile and --latent-overlap set the tiles")
    if args.model:
        source, misplaced, do = ("--model", given(args), "leave it out, or name OSEDiff's checkpoint with --lora")
    if misplaced:
        raise QartsrError(f"{misplaced[0]} does not go with {source}", "qartsr upscale", do)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Of ``OneStepSRPipeline.from_pretrained``."""
    tiles = {"tile": args.tile, "overlap": _or(args.overlap, OVERLAP), "rounds": _or(args.rounds, ROUNDS)}
    return {"device": args.device, "engine": args.engine or "auto", "threads": args.threads or 0, **tiles}


def _loader(args: argparse.Namespace) -> Load:
    """Loads the model at its first call: an image that cannot be read need not wait for that."""
    return cache(partial(_load, args))


def _load(args: argparse.Namespace) -> OneStepSRPipeline | OSEDiffPipeline:
    if args.lora:
        import torch

        from qartsr.upscale.osediff import OSEDiffPipeline

        if args.threads:
            torch.set_num_threads(args.threads)
        return OSEDiffPipeline.load(osediff_options(args))
    from qartsr.api import OneStepSRPipeline

    pipe = OneStepSRPipeline.from_pretrained(args.model, **_options(args))
    if args.verbose or (args.engine and not args.quiet):
        say(f"note: engine {pipe.engine}: {pipe.reason}")
    return pipe


UPSCALE = Command("upscale", "make images and clips four times as wide and high, or as asked", _arguments, _run)
