"""``qartsr upscale s3://BUCKET/IN/ s3://BUCKET/OUT/``: very many images, with a manifest."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qartsr.cli.batch import PartlyFailedError, Wish
from qartsr.cli.command import threads
from qartsr.cli.show import LINE_SECONDS, say
from qartsr.errors import QartsrError

if TYPE_CHECKING:
    from qartsr.api import OneStepSRPipeline
    from qartsr.bulk import Bulk, Copies, Engine, Manifest, Row, Tally
    from qartsr.upscale.osediff import OSEDiffPipeline

    Pipe = OneStepSRPipeline | OSEDiffPipeline

_S3 = "s3://"


def add_bulk_options(parser: argparse.ArgumentParser) -> None:
    """Declare what very many images have."""
    group = parser.add_argument_group("very many images, from s3://BUCKET/PREFIX/ or a folder to another")
    manifest = "JSON lines, one for each image; what it lists is not made again (default with s3://: hidden, in OUT)"
    group.add_argument("--manifest", metavar="FILE", type=Path, help=manifest)
    cluster = "the machines of a Ray cluster (RAY_ADDRESS, or one started here); without any, processes of this machine"
    group.add_argument("--cluster", choices=("ray",), help=cluster)
    actors = (
        "processes that hold the model, with --cluster (default: one for each GPU, else for each --threads processors)"
    )
    group.add_argument("--actors", metavar="N", type=threads, help=actors)


def wants_bulk(words: list[str], output: str, args: argparse.Namespace) -> bool:
    """Whether the words are of this kind. Raises QartsrError when they are half so."""
    told = any(word.startswith(_S3) for word in (*words, output))
    if args.actors is not None and (not args.cluster or args.actors < 1):
        raise QartsrError("is for --cluster, and 1 or more", "--actors", "leave it out, or name a cluster")
    if not told and not args.manifest and not args.cluster:
        return False
    if len(words) != 1 or "-" in (words[0], output):
        raise QartsrError("takes one folder or s3:// prefix to another", "qartsr upscale", "name one input")
    source = Path(words[0])
    if not words[0].startswith(_S3) and not source.is_dir():
        raise QartsrError("is not a folder", words[0], "name a folder, or s3://BUCKET/PREFIX/")
    if not args.model:
        raise QartsrError("goes with --model only", "--manifest, --cluster and s3://", "name a package")
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
    options: Mapping[str, Any],
) -> None:
    """Make what is not there yet; ``options``: of ``OneStepSRPipeline.from_pretrained``.

    Raises PartlyFailedError where images failed.
    """
    from qartsr.bulk import Bulk, Copies, open_manifest, open_place
    from qartsr.bulk.place import PlaceError

    source, target = open_place(words[0]), open_place(output)
    quality, strip = wish.quality, wish.strip
    bulk = Bulk(source, target, wish.outscale, args.suffix, args.format, quality, strip, wish.max_pixels)
    path = args.manifest or _manifest(bulk)
    copies = Copies(target, path) if args.manifest is None and output.startswith(_S3) else None
    if copies:
        try:
            copies.fetch()
        except PlaceError as error:
            say(f"note: {error}")
    with open_manifest(path) as manifest:
        tally = _done(bulk, manifest, args, load, options, copies)
    if copies:
        copies.join()
    if args.json:
        print(json.dumps({**tally._asdict(), "manifest": str(path)}))
    elif not args.quiet:
        say(f"{tally.made} made, {tally.skipped} there already, {tally.failed} failed; manifest: {path}")
    if tally.failed:
        raise PartlyFailedError(tally.failed, sum(tally), words[0])


def _manifest(bulk: Bulk) -> Path:
    """In the output folder; of a bucket in the cache."""
    from qartsr.bulk import NAME
    from qartsr.files import cache_folder, sha256_bytes

    if not bulk.target.address.startswith(_S3):
        return Path(bulk.target.address) / NAME
    return cache_folder() / "manifests" / f"{sha256_bytes(bulk.target.address.encode())[:16]}.jsonl"


def _done(
    bulk: Bulk,
    manifest: Manifest,
    args: argparse.Namespace,
    load: Callable[[], Pipe],
    options: Mapping[str, Any],
    copies: Copies | None,
) -> Tally:
    from qartsr.api import OneStepSRPipeline
    from qartsr.bulk import Alone, upscale_bulk

    tiles = f"engine {args.engine or 'auto'} tile {args.tile} overlap {args.overlap} rounds {args.rounds}"
    pipe = load()
    assert isinstance(pipe, OneStepSRPipeline)  # --lora was refused
    digest, engine = pipe.digest(), cast("Engine", Alone(bulk, pipe))
    if args.cluster:
        from qartsr.bulk.cluster import Cluster, Recipe

        engine = Cluster(bulk, Recipe(_package(args.model, digest), options), args.actors)
    if copies:
        copies.begin()
    return upscale_bulk(bulk, manifest, engine, digest, _Teller(args.quiet, copies), tiles)


def _package(model: str, digest: str) -> bytes:
    """The file, which other machines need not have."""
    from qartsr.files import reading, sha256_bytes
    from qartsr.upscale.model_source import local

    path = local(model)
    file = path / "model.safetensors" if path.is_dir() else path
    with reading(file):
        package = file.read_bytes()
    if sha256_bytes(package) != digest:
        raise QartsrError("is no package", model, "with --cluster name a package or models:/NAME@ALIAS")
    return package


class _Teller:
    """What failed at once, and how far it is now and then."""

    def __init__(self, quiet: bool, copies: Copies | None) -> None:
        self._quiet, self._begun, self._said, self._count = quiet, time.monotonic(), time.monotonic(), 0
        self._copies = copies

    def __call__(self, row: Row) -> None:
        self._count += 1
        if self._copies and (note := self._copies.go_on()):
            say(f"note: the manifest was not copied: {note}")
        now = time.monotonic()
        if row.error is not None:
            say(f"error: {row.error}")
        elif not self._quiet and now - self._said > LINE_SECONDS:
            self._said = now
            say(f"{self._count} images, {self._count / (now - self._begun):.2f} images/s")
