"""The plots: file size against quality, and what quantization destroys at each timestep (the TRQ probe)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from qartsr.evaluate.report.inputs import Contents, Table
from qartsr.evaluate.report.theme import INK, MUTED, SURFACE, Draw, colour, legend, log_scale


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
