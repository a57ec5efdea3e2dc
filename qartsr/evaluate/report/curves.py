"""Loss curves of TRQ, RPQ and ET: every step faintly, a running mean on top."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from qartsr.evaluate.report.inputs import Table
from qartsr.evaluate.report.theme import INK, LINE, MUTED, Draw, colour, legend, log_scale

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
