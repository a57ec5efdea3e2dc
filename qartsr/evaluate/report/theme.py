"""How figures look: one palette for the page in light and dark, the same colours fixed for PNG files.

Figures are drawn with the light palette. In SVG every colour of it becomes a CSS variable, so a figure follows the
page into dark mode; text stays text in the page's font.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

INK, MUTED, LINE, SURFACE = "#1c2029", "#626a79", "#dfe2e8", "#ffffff"
SERIES = ("#2a78d6", "#e0602a", "#4a3aa7", "#12876a", "#c2417c", "#8a6d00", "#5b6b7d")
DARK = {
    INK: "#eceef3", MUTED: "#9aa3b2", LINE: "#2c323e", SURFACE: "#161a21",
    **dict(zip(SERIES, ("#5ba0f2", "#f0824f", "#9c90f0", "#37b893", "#e87baa", "#cfae3a", "#93a1b3"), strict=True)),
}  # fmt: skip
"""Light colour -> its partner in dark mode."""
NAMES = {INK: "ink", MUTED: "muted", LINE: "line", SURFACE: "surface"} | {c: f"s{n}" for n, c in enumerate(SERIES)}
"""Light colour -> name of the CSS variable."""
_TOLD = 150
"""Most values of a line that the pointer finds."""
_FONT = "DejaVu Sans"
_SIZE = (4.6, 3.1)
"""One panel, inches. A panel fills a phone's width and a third of a desktop's."""

Draw = Callable[[Axes], None]


def colour(index: int) -> str:
    """Colour of the bit-width at this place of the configured list."""
    return SERIES[index % len(SERIES)]


def log_scale(axes: Axes, heights: Sequence[float]) -> None:
    """Logarithmic heights with plain numbers at 1, 2 and 5, so that less than a decade has ticks too.

    ``heights``: what is drawn; equal heights get room around them, and without a positive one the scale stays linear.
    """
    positive = [height for height in heights if height > 0]
    if not positive:
        return
    axes.set_ylim(min(positive) / 1.2, max(positive) * 1.2)  # before the scale, which would autoscale equal heights
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def legend(axes: Axes) -> None:
    """The lines' names in one row below the plot."""
    count = len(axes.get_legend_handles_labels()[1])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=count, handlelength=1.2, columnspacing=1.2)


def svg(draw: Draw, name: str, hover: str = "") -> str:
    """One panel as an ``<svg>`` element whose colours are CSS variables. ``name`` keeps ids apart on the page.

    ``hover``: what a place on the axis is called; with it the labelled lines are data, by which the page's script
    tells the values under the pointer.
    """
    with _style(name):
        figure = Figure(_SIZE, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        data = f" data-unit='{hover}' data-lines='{_data(axes)}'" if hover else ""
    text = buffer.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    for light, variable in NAMES.items():
        text = text.replace(light, f"var(--{variable})")
    return re.sub(rf"'{_FONT}'[^;\"]*", "var(--font)", text).replace("<svg", f"<svg{data}", 1)


def _data(axes: Axes) -> str:
    """JSON: where the plot lies in its figure (0 to 1, from below), which steps it spans, and its labelled lines."""
    named = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    lines = []
    for line in named:
        steps, values = (np.asarray(values, float) for values in line.get_data())
        kept = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _TOLD)).round().astype(int))
        points = [[float(steps[at]), float(f"{values[at]:.4g}")] for at in kept]
        lines.append({"name": str(line.get_label()), "colour": f"var(--{NAMES[str(line.get_color())]})", "at": points})
    box = [round(float(edge), 4) for edge in axes.get_position().extents]
    return json.dumps({"box": box, "span": [float(edge) for edge in axes.get_xlim()], "lines": lines}).replace("'", "")


def png(panels: Sequence[Draw]) -> bytes:
    """Panels side by side on white, for places that show no page."""
    with _style("png"):
        figure = Figure((_SIZE[0] * len(panels), _SIZE[1]), layout="constrained", facecolor=SURFACE)
        for draw, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
            draw(axes)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def _style(salt: str) -> Iterator[None]:
    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": salt, "font.family": _FONT, "font.size": 9.5, "figure.dpi": 160,
        "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": LINE, "axes.labelcolor": MUTED,
        "axes.facecolor": "none", "figure.facecolor": "none", "axes.titlesize": 11, "axes.titlecolor": INK,
        "axes.titlelocation": "left", "axes.titlepad": 10, "axes.grid": True, "axes.axisbelow": True,
        "grid.color": LINE, "grid.linewidth": 0.7, "xtick.color": MUTED, "ytick.color": MUTED, "text.color": INK,
        "xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0, "ytick.minor.size": 0,
        "lines.linewidth": 1.8, "lines.solid_capstyle": "round", "legend.frameon": False, "legend.fontsize": 9,
    }  # fmt: skip
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield
