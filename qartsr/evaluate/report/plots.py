"""Plots: file size against quality, loss curves, and what quantization destroys at each timestep (the TRQ probe)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from qartsr.evaluate.report.inputs import Contents, Table
from qartsr.evaluate.report.theme import INK, LINE, MUTED, SURFACE, Draw, colour, legend, log_scale

Line = tuple[str, str, Table]
"""label, colour, rows with columns ``step`` and ``total``"""


def lines(tables: Sequence[tuple[str, Table]]) -> list[Line]:
    """One line per bit-width, in the bit-width's colour; empty tables are left out."""
    return [(name.upper(), colour(index), rows) for index, (name, rows) in enumerate(tables) if rows]


def single(label: str, rows: Table) -> list[Line]:
    """The one line of a phase that all bit-widths share."""
    return [(label, INK, rows)] if rows else []


def loss(title: str, drawn: Sequence[Line]) -> Draw:
    """Total loss against step on a log scale; where rows name a module, its turn is marked."""

    def draw(axes: Axes) -> None:
        heights: list[float] = []
        for label, shade, rows in drawn:
            steps, total = (np.array([float(row[column]) for row in rows]) for column in ("step", "total"))
            axes.plot(steps, total, color=shade, linewidth=0.7, alpha=0.25)
            axes.plot(steps, smooth(total), color=shade, label=label)
            heights += total.tolist()
        axes.margins(x=0.01)
        log_scale(axes, heights)
        axes.set_title(title, pad=18)  # the components' names stand between title and plot
        axes.set(xlabel="step", ylabel="loss")
        _modules(axes, drawn[0][2])
        legend(axes)

    return draw


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred running mean over about a thirtieth of the curve; shorter at its ends."""
    reach = max(1, len(values) // 60)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    smoothed: NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)
    return smoothed


def running(rows: Table) -> list[tuple[int, float]]:
    """Step and running mean of the total loss; of a long curve at most three hundred points, the last among them."""
    if not rows:
        return []
    total = smooth(np.array([float(row["total"]) for row in rows]))
    chosen = range(len(rows) - 1, -1, -max(1, -(-len(rows) // 300)))[::-1]
    return [(int(rows[at]["step"]), float(f"{total[at]:.4g}")) for at in chosen]


def _modules(axes: Axes, rows: Table) -> None:
    """A hairline where the next module enters; the component's name where it begins."""
    if "module" not in rows[0]:
        return
    previous = ""
    for name, group in groupby(rows, key=lambda row: row["module"]):
        start, component = float(next(group)["step"]), name.split(".")[0]
        changed = component != previous
        axes.axvline(start, color=MUTED if changed else LINE, linewidth=0.9 if changed else 0.6, zorder=0)
        if changed:
            at = (start, 1)
            axes.annotate(component, at, (3, 2), ("data", "axes fraction"), "offset points", color=MUTED, fontsize=8)
        previous = component


class Point(NamedTuple):
    """A package: megabytes, dB, and how it is drawn."""

    size: float
    quality: float
    title: str
    colour: str


def rate_quality(contents: Contents) -> Draw:
    """PSNR against megabytes for every bit-width; FP and bicubic as lines."""
    points = [
        Point(s.bytes / 1e6, s.scores["psnr"], s.title, colour(index))
        for index, s in enumerate(contents.quantized)
        if s.bytes
    ]
    references = [(contents.fp, "-"), (contents.bicubic, (0, (4, 3)))]

    def draw(axes: Axes) -> None:
        for subject, style in references:
            level = subject.scores["psnr"]
            axes.axhline(level, color=MUTED, linewidth=1.2, linestyle=style)
            size = f" · {subject.bytes / 1e6:.2f} MB" if subject.bytes else ""
            text = f"{subject.title} {level:.2f} dB{size}"
            where = ("axes fraction", "data")
            axes.annotate(text, (1, level), (0, 3), where, "offset points", color=MUTED, ha="right", fontsize=8.5)
        _chain(axes, points)
        axes.set(title="File size and quality", xlabel="package, MB", ylabel="PSNR on luma, dB")
        axes.margins(x=0.22, y=0.2)

    return draw


def _chain(axes: Axes, points: Sequence[Point]) -> None:
    axes.plot([p.size for p in points], [p.quality for p in points], color=MUTED, linewidth=1, zorder=2)
    for p in points:
        axes.plot(p.size, p.quality, "o", color=p.colour, markersize=9, markeredgecolor=SURFACE, zorder=3)
        axes.annotate(p.title, (p.size, p.quality), (9, -12), textcoords="offset points", color=INK, fontsize=9)


def probe(rows: Table, bits: Sequence[str], column: str, title: str, label: str, log: bool) -> Draw:
    """One column of the probe against the timestep, one line per bit-width."""
    steps = sorted({int(row["timestep"]) for row in rows}, reverse=True)

    def draw(axes: Axes) -> None:
        for index, name in enumerate(bits):
            values = {int(row["timestep"]): float(row[column]) for row in rows if row["bits"] == name}
            places = [place for place, step in enumerate(steps) if step in values]
            heights = [values[steps[place]] for place in places]
            axes.plot(
                places, heights, "o-", color=colour(index), markeredgecolor=SURFACE, markersize=7, label=name.upper()
            )
        lambdas = {int(row["timestep"]): float(row["lambda"]) for row in rows}
        axes.set_xticks(range(len(steps)), [f"T = {step}\nλ = {lambdas[step]:.3g}" for step in steps])
        axes.set(title=title, ylabel=label)
        axes.margins(x=0.12, y=0.12)
        if log:
            log_scale(axes, [float(row[column]) for row in rows])
        legend(axes)

    return draw
