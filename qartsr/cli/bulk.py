"""``qartsr upscale s3://BUCKET/IN/ s3://BUCKET/OUT/``: very many images, with a manifest."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qartsr.cli.batch import PartlyFailedError, Wish
from qartsr.cli.show import say
from qartsr.errors import QartsrError

if TYPE_CHECKING:
    from qartsr.api import OneStepSRPipeline
    from qartsr.bulk import Bulk, Manifest, Row, Tally
    from qartsr.upscale.osediff import OSEDiffPipeline

    Pipe = OneStepSRPipeline | OSEDiffPipeline

_S3 = "s3://"
_EVERY = 30.0
"""Seconds between two lines about the progress."""
NAME = ".qartsr-manifest.jsonl"
"""Of the manifest, in the output; hidden, so never an image."""


def add_bulk_options(parser: argparse.ArgumentParser) -> None:
    """Declare what very many images have."""
    group = parser.add_argument_group("very many images, from s3://BUCKET/PREFIX/ or a folder to another")
    manifest = f"JSON lines, one for each image; what it lists is not made again (default with s3://: {NAME} in OUT)"
    group.add_argument("--manifest", metavar="FILE", type=Path, help=manifest)


def wants_bulk(words: list[str], output: str, args: argparse.Namespace) -> bool:
    """Whether the words are of this kind. Raises QartsrError when they are half so."""
    told = any(word.startswith(_S3) for word in (*words, output))
    if not told and not args.manifest:
        return False
    if len(words) != 1 or "-" in (words[0], output):
        raise QartsrError("takes one folder or s3:// prefix to another", "qartsr upscale", "name one input")
    source = Path(words[0])
    if not words[0].startswith(_S3) and not source.is_dir():
        raise QartsrError("is not a folder", words[0], "name a folder, or s3://BUCKET/PREFIX/")
    if not args.model:
        raise QartsrError("goes with --model only", "--manifest and s3://", "name a package")
    ends = [Path(end).resolve() if not end.startswith(_S3) else Path(end) for end in (words[0], output)]
    if ends[0] == ends[1] or ends[0] in ends[1].parents or ends[1] in ends[0].parents:
        raise QartsrError("is in the input, or the input in it", output, "name another output")
    return True


def run_bulk(
    words: list[str],
    output: str,
    args: argparse.Namespace,
    load: Callable[[], Pipe],
    wish: Wish,
) -> None:
    """Make what is not there yet. Raises PartlyFailedError where images failed."""
    from qartsr.bulk import Bulk, open_manifest, open_place

    source, target = open_place(words[0]), open_place(output)
    quality, strip = wish.quality, wish.strip
    bulk = Bulk(source, target, wish.outscale, args.suffix, args.format, quality, strip, wish.max_pixels)
    path = args.manifest or _manifest(bulk)
    with open_manifest(path) as manifest:
        tally = _done(bulk, manifest, args, load)
    if args.manifest is None and output.startswith(_S3):
        target.write(NAME, path.read_bytes())
    if args.json:
        print(json.dumps({**tally._asdict(), "manifest": str(path)}))
    elif not args.quiet:
        say(f"{tally.made} made, {tally.skipped} there already, {tally.failed} failed; manifest: {path}")
    if tally.failed:
        raise PartlyFailedError(tally.failed, sum(tally), words[0])


def _manifest(bulk: Bulk) -> Path:
    """In the output folder; of a bucket in the cache, begun with what an earlier run left in the bucket."""
    from qartsr.bulk.place import PlaceError
    from qartsr.files import cache_folder, sha256_bytes, write_bytes

    if not bulk.target.address.startswith(_S3):
        return Path(bulk.target.address) / NAME
    path = cache_folder() / "manifests" / f"{sha256_bytes(bulk.target.address.encode())[:16]}.jsonl"
    if not path.exists() and bulk.target.has(NAME):
        try:
            write_bytes(path, bulk.target.read(NAME))
        except PlaceError as error:
            say(f"note: {error}")
    return path


def _done(bulk: Bulk, manifest: Manifest, args: argparse.Namespace, load: Callable[[], Pipe]) -> Tally:
    from qartsr.api import OneStepSRPipeline
    from qartsr.bulk import Alone, upscale_bulk

    tiles = f"engine {args.engine or 'auto'} tile {args.tile} overlap {args.overlap} rounds {args.rounds}"
    pipe = load()
    assert isinstance(pipe, OneStepSRPipeline)  # --lora was refused
    return upscale_bulk(bulk, manifest, Alone(bulk, pipe), pipe.digest(), _Teller(args.quiet), tiles)


class _Teller:
    """What failed at once, and how far it is now and then."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._begun, self._said, self._count = quiet, time.monotonic(), time.monotonic(), 0

    def __call__(self, row: Row) -> None:
        self._count += 1
        now = time.monotonic()
        if row.error is not None:
            say(f"error: {row.error}")
        elif not self._quiet and now - self._said > _EVERY:
            self._said = now
            say(f"{self._count} images, {self._count / (now - self._begun):.2f} images/s")
