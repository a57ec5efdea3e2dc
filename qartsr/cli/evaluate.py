"""``qartsr evaluate --pred DIR --ref DIR --metrics psnr,ssim``: how near images are to their references."""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qartsr.cli.command import Command, add_image_options
from qartsr.cli.jobs import demand_file
from qartsr.cli.show import answer, bar, say, show, some
from qartsr.errors import QartsrError, printable


class Pair(NamedTuple):
    """One name."""

    name: str
    image: Path
    reference: Path


class Matched(NamedTuple):
    """What two folders hold."""

    pairs: tuple[Pair, ...]
    ignored: tuple[tuple[Path, tuple[str, ...]], ...]
    """by folder, the names of what is no image"""


def match(images: Path, references: Path) -> Matched:
    """Files of equal stem, sorted by it. Raises QartsrError unless every image has one reference and vice versa."""
    (left, left_ignored), (right, right_ignored) = _by_stem(images), _by_stem(references)
    for ours, theirs, folder in ((left, right, references), (right, left, images)):
        alone = sorted(ours.keys() - theirs.keys())
        if alone:
            what = f"has no counterpart in {folder}" + (f" (one of {len(alone)})" if len(alone) > 1 else "")
            raise QartsrError(what, str(ours[alone[0]]), "give two folders of the same images")
    pairs = tuple(Pair(stem, left[stem], right[stem]) for stem in sorted(left))
    ignored = ((images, left_ignored), (references, right_ignored))
    return Matched(pairs, tuple((folder, names) for folder, names in ignored if names))


def _by_stem(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Images by stem (composed, as macOS decomposes its names), and the names of everything else that is not hidden."""
    from qartsr.images import READABLE, is_image

    if not folder.is_dir():
        raise QartsrError("is not a folder", str(folder), "check the path")
    found: dict[str, Path] = {}
    ignored: list[str] = []
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        stem = unicodedata.normalize("NFC", path.stem)
        if not is_image(path) or path.is_dir():
            ignored.append(path.name)
        elif stem in found:
            raise QartsrError(f"has the same name as {found[stem].name}", str(path), "keep one of them")
        else:
            found[stem] = path
    if not found:
        raise QartsrError(f"has no {READABLE} images", str(folder), "check the path")
    return found, tuple(ignored)


if TYPE_CHECKING:
    from PIL import Image
    from rich.table import Table

    from qartsr.evaluate import Row, Scores
    from qartsr.metrics import Meter

_NONE = "\N{EN DASH}"


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pred", metavar="DIR", type=Path, required=True, help="images to judge")
    parser.add_argument("--ref", metavar="DIR", type=Path, required=True, help="their references, of the same names")
    names = "comma-separated: psnr, psnr_rgb, ssim, lpips, dists, niqe, musiq, maniqa, clipiqa"
    parser.add_argument("--metrics", metavar="NAMES", type=_names, required=True, help=names)
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the scores of each image")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write means, scores and what is missing, and why")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add_image_options(parser)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",")))


def _run(args: argparse.Namespace) -> None:
    from qartsr.metrics import METRICS, Meter, demand_libraries

    for name in args.metrics:
        if name not in METRICS:
            raise QartsrError(f"unknown metric {name!r}", "--metrics", f"choose from {', '.join(METRICS)}")
    for target in (args.csv, args.json):
        if target is not None:
            demand_file(target)
    if args.csv is not None and args.json is not None and args.csv.resolve() == args.json.resolve():
        raise QartsrError("is named twice", str(args.json), "name two files for --csv and --json")
    demand_libraries()
    from qartsr.evaluate import Scores  # which loads them
    from qartsr.upscale import choose_device

    matched = match(args.pred, args.ref)
    for folder, ignored in matched.ignored:
        say(f"note: {folder}: left out, being no images: {some(ignored)}")
    meter = Meter(args.metrics, device=choose_device(args.device))
    rows, failed = _measure_all(matched.pairs, meter, args.max_pixels)
    scores = Scores("images", rows, meter.unavailable)
    _tell(scores)
    _write(scores, failed, args.csv, args.json)
    _demand_all(scores, failed, str(args.pred))
    if not meter.names:
        raise QartsrError("none of these can be measured here", "--metrics", "fetch the weights of one, or add psnr")


def _demand_all(scores: Scores, failed: Mapping[str, str], place: str) -> None:
    """Raise QartsrError where an image lacks a score that could have been measured."""
    partial, count = sum(bool(row.missing) for row in scores.rows), len(scores.rows) + len(failed)
    parts = [f"{len(failed)} of {count} images could not be measured and count in no mean"] * bool(failed)
    parts += [f"{partial} of {count} images lack some scores, and count in the means of the others"] * bool(partial)
    if parts:
        raise QartsrError("; ".join(parts), place, "see the sentences above, one for each")


def _measure_all(pairs: tuple[Pair, ...], meter: Meter, most: int | None) -> tuple[tuple[Row, ...], dict[str, str]]:
    """The scores, and the images that have none, with the reason: one of them must not cost those of the others.

    Neither must one metric that refuses an image.
    """
    rows: list[Row] = []
    failed: dict[str, str] = {}
    with bar(len(pairs)) as drawn:
        for pair in pairs:
            drawn.begin(pair.name)
            try:
                row = _measure(pair, meter, most)
            except QartsrError as error:
                if len(pairs) == 1:
                    raise
                failed[pair.name] = str(error)
                say(f"error: {error}")
                continue
            rows.append(row)
            for name, reason in row.missing.items():
                say(f"error: {pair.image}: has no {name} ({reason}); leave it out, or choose other metrics.")
    return tuple(rows), failed


def _measure(pair: Pair, meter: Meter, most: int | None) -> Row:
    from qartsr.evaluate import Row
    from qartsr.images import read_rgb

    image, reference = (read_rgb(path, True, most) for path in (pair.image, pair.reference))
    if image.size != reference.size:
        what = f"has {_size(image)} pixels, {pair.reference} has {_size(reference)}"
        raise QartsrError(what, str(pair.image), "compare images of equal size")
    scores, missing = meter.attempt(image, reference)
    if missing and not scores:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise QartsrError(f"cannot be measured ({reasons})", str(pair.image), "leave it out, or choose other metrics")
    return Row(pair.name, "images", scores, missing)


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"


def _tell(scores: Scores) -> None:
    if scores.averages(some=True):
        show(_table(scores))
    for name in scores.metrics():
        lacking = {row.image: row.missing[name] for row in scores.rows if name in row.missing}
        if lacking:
            count, (image, reason) = len(lacking), next(iter(lacking.items()))
            where = f"{image} ({reason})" + (f" and {count - 1} more" if count > 1 else "")
            answer(f"{name} is missing on {where}: its mean is over {len(scores.rows) - count} images")
    for name, reason in scores.unavailable.items():
        answer(f"{name} is unavailable: it {reason}")


def _table(scores: Scores) -> Table:
    from rich.table import Table
    from rich.text import Text

    means = scores.averages(some=True)
    table = Table(show_footer=True)
    table.add_column("image", "mean")
    for name, mean in means.items():
        table.add_column(name, f"{mean:.4f}", justify="right")
    for row in scores.rows:
        cells = (f"{row.scores[name]:.4f}" if name in row.scores else _NONE for name in means)
        table.add_row(Text(printable(row.image)), *cells)
    return table


def _write(scores: Scores, failed: Mapping[str, str], csv: Path | None, json: Path | None) -> None:
    from qartsr.files import write_json, write_text

    if csv is not None:
        write_text(csv, scores.as_csv())
    if json is not None:
        each = [
            {"image": row.image, **row.scores, **({"missing": dict(row.missing)} if row.missing else {})}
            for row in scores.rows
        ]
        values: dict[str, object] = {"metrics": scores.averages(some=True), "per_image": each}
        write_json(json, {**values, "failed": dict(failed), "unavailable": dict(scores.unavailable)})


EVALUATE = Command("evaluate", "measure images against their references", _arguments, _run)
