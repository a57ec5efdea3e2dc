"""The tables of the page as plain text cells."""

from __future__ import annotations

from typing import NamedTuple

from qartsr.evaluate.report.inputs import Contents, Subject, Table
from qartsr.remote import version_page


class Column(NamedTuple):
    """A metric: its key, its heading, which way is better, its decimals."""

    key: str
    title: str
    better: str
    digits: int


class Tile(NamedTuple):
    """One bit-width at a glance."""

    title: str
    psnr: str
    difference: str
    size: str


KNOWN = (
    Column("psnr", "PSNR, dB", "↑", 2),
    Column("psnr_rgb", "PSNR RGB, dB", "↑", 2),
    Column("ssim", "SSIM", "↑", 4),
    Column("psnr_to_fp", "PSNR to FP, dB", "↑", 2),
    Column("psnr_rgb_to_fp", "PSNR RGB to FP, dB", "↑", 2),
    Column("lpips_random", "LPIPS, random features", "↓", 4),
    Column("lpips", "LPIPS", "↓", 4),
    Column("dists", "DISTS", "↓", 4),
    Column("niqe", "NIQE", "↓", 3),
    Column("musiq", "MUSIQ", "↑", 2),
    Column("maniqa", "MANIQA", "↑", 4),
    Column("clipiqa", "CLIPIQA", "↑", 4),
    Column("ewarp", "Warping error", "↓", 3),
    Column("ewarp_tvl1", "Warping error (TV-L1)", "↓", 3),
    Column("psnr_neighbours", "PSNR of neighbouring frames, dB", "", 2),
)
DASH = "\N{EN DASH}"
"""Stands where there is no value."""
_TIMES, _MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"


def columns(contents: Contents) -> list[Column]:
    """The metrics that any subject has, in a fixed order."""
    measured = {name for subject in contents.subjects for name in subject.scores}
    return [column for column in KNOWN if column.key in measured]


def tables(contents: Contents) -> list[tuple[str, list[tuple[Subject, list[str], str]]]]:
    """Which pictures, and rows of (subject, its means over them, its size): all pictures, then set by set."""
    sets, subjects = contents.scenes.sets(), contents.subjects
    every = _pictures("all" if len(sets) > 1 else next(iter(sets)), len(contents.scenes.items))
    found = [(every, [s.scores for s in subjects])]
    for name, items in sets.items() if len(sets) > 1 else ():
        found.append((_pictures(name, len(items)), [s.sets.get(name, {}) for s in subjects]))
    return [(title, _rows(contents, means)) for title, means in found]


def _rows(contents: Contents, means: list[dict[str, float]]) -> list[tuple[Subject, list[str], str]]:
    shown = columns(contents)
    return [
        (subject, [_score(scores, column) for column in shown], megabytes(subject.bytes))
        for subject, scores in zip(contents.subjects, means, strict=True)
    ]


def _pictures(name: str, count: int) -> str:
    return f"{name}, {count} picture{'s' if count > 1 else ''}"


def headline(contents: Contents) -> list[Tile]:
    """A tile per bit-width: quality, distance from FP, size."""
    fp = contents.fp
    return [
        Tile(
            subject.title,
            f"{subject.scores['psnr']:.2f}",
            f"{subject.scores['psnr'] - fp.scores['psnr']:+.2f} dB".replace("-", _MINUS),
            megabytes(subject.bytes) + (_smaller(fp, subject)),
        )
        for subject in contents.quantized
    ]


def _smaller(fp: Subject, subject: Subject) -> str:
    """As `qartsr inspect` counts: against 16 bits, in which a floating-point model would be shipped."""
    return f", {fp.fp16 / subject.bytes:.2f}{_TIMES} smaller than fp16" if subject.bytes else ""


def artifacts(contents: Contents) -> list[tuple[Subject, str, str, str]]:
    """Subject, registered model and version, its page on MLflow (which has its run) and address.

    All say so when it was not published; without a server to name, the page is empty.
    """
    return [
        (s, f"{s.receipt['model']} version {s.receipt['version']}", _version_page(contents, s), s.receipt["uri"])
        if s.receipt
        else (s, "not registered", "", DASH)
        for s in contents.quantized
    ]


def _version_page(contents: Contents, subject: Subject) -> str:
    return version_page(contents.inputs.mlflow, subject.receipt["model"], subject.receipt["version"])


def per_image(contents: Contents) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """For every column with per-image scores: its title and rows of (image, one cell per subject)."""
    names = [scene.name for scene in contents.scenes.items]
    single = {key for subject in contents.subjects for scores in subject.per_image.values() for key in scores}
    return [
        (
            f"{column.title} {column.better}",
            [(name, [_score(s.per_image.get(name, {}), column) for s in contents.subjects]) for name in names],
        )
        for column in columns(contents)
        if column.key in single
    ]


def unavailable(contents: Contents) -> list[tuple[str, str, str]]:
    """Metric, what it needs, the command that gets it."""
    titles = {column.key: column.title for column in KNOWN}
    parts = {name: [*reason.split("`"), "", ""] for name, reason in contents.unavailable.items()}
    return [(titles.get(name, name), part[0], part[1]) for name, part in parts.items()]


def probe_rows(rows: Table) -> list[list[str]]:
    """Timestep, bits, λ, κ, relative errors, PSNR of the UNet-only and of the whole quantized model."""
    return [
        [
            row["timestep"],
            row["bits"].upper(),
            f"{float(row['lambda']):.4f}",
            f"{float(row['kappa']):.4g}",
            f"{float(row['zh_error']):.4g}",
            f"{float(row['eps_error']):.4g}",
            f"{float(row['psnr_unet_only']):.2f}",
            f"{float(row['psnr']):.2f}",
        ]
        for row in rows
    ]


def megabytes(size: int) -> str:
    """10^6 bytes with two decimals; a dash for nothing."""
    return f"{size / 1e6:.2f} MB" if size else DASH


def _score(scores: dict[str, float], column: Column) -> str:
    return f"{scores[column.key]:.{column.digits}f}" if column.key in scores else DASH
