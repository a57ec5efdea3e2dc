"""Layer by layer: bits, use of the codes and error, from the ``layers.json`` beside each package."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from qartsr.evaluate.report.inputs import Contents
from qartsr.evaluate.report.rows import DASH
from qartsr.evaluate.report.theme import Draw, colour, legend, log_scale
from qartsr.files import read_json

_BARS = 32
"""Most bars of a histogram in the table."""
Layers = dict[str, list[dict[str, Any]]]
"""by bit-width; what :func:`qartsr.packing.layer_facts` returns"""


class Cell(NamedTuple):
    """One layer at one bit-width."""

    bits: str
    error: str
    bars: tuple[int, ...]
    """heights of its codes' histogram, 0 to 100"""


def read_layers(contents: Contents) -> Layers:
    """Of the packages that have them."""
    files = {bits: contents.inputs.packages / bits / "layers.json" for bits in contents.inputs.bits}
    return {bits: read_json(file) for bits, file in files.items() if file.is_file()}


def figures(layers: Layers, order: tuple[str, ...]) -> list[Draw]:
    """Error of every layer, then the use of the codes at each bit-width."""
    shades = {bits: colour(order.index(bits)) for bits in layers}
    return [
        _errors(layers, shades),
        *(_codes(bits, layers[bits], shades[bits]) for bits in layers if any(row["codes"] for row in layers[bits])),
    ]


def _errors(layers: Layers, shades: dict[str, str]) -> Draw:
    def draw(axes: Axes) -> None:
        heights: list[float] = []
        for bits, rows in layers.items():
            errors = [row["error"] for row in rows]
            axes.plot(np.arange(1, len(rows) + 1), errors, color=shades[bits], linewidth=1.2, label=bits.upper())
            heights += errors
        axes.margins(x=0.01)
        log_scale(axes, heights)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title("Error of each layer's output")
        axes.set(xlabel="layer, in the order of inference", ylabel="squared error, relative")
        legend(axes)

    return draw


def _codes(bits: str, rows: list[dict[str, Any]], shade: str) -> Draw:
    """Mean of the layers' histograms, of those at the width that most layers have."""
    usual = Counter(row["weight_bits"] for row in rows if row["codes"]).most_common(1)[0][0]
    shares = [np.array(row["codes"]) / row["weights"] for row in rows if row["weight_bits"] == usual and row["codes"]]

    def draw(axes: Axes) -> None:
        mean = 100 * np.mean(shares, axis=0)
        axes.bar(np.arange(len(mean)), mean, color=shade, width=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.set_title(f"Codes of weights, {bits.upper()}")
        axes.set(xlabel=f"code ({len(shares)} layers of {usual} bits)", ylabel="share of weights, %")

    return draw


def bits_rows(layers: Layers) -> list[tuple[str, list[str]]]:
    """For every pair of bits: number of layers and share of all weights, a cell for each bit-width."""
    counts = {bits: Counter[str]() for bits in layers}
    weights = {bits: Counter[str]() for bits in layers}
    for bits, rows in layers.items():
        for row in rows:
            counts[bits][_pair(row)] += 1
            weights[bits][_pair(row)] += row["weights"]
    pairs = sorted({pair for found in counts.values() for pair in found}, key=lambda pair: (len(pair), pair))
    return [
        (pair, [_share(counts[bits][pair], weights[bits][pair] / weights[bits].total()) for bits in layers])
        for pair in pairs
    ]


def _share(count: int, share: float) -> str:
    return f"{count} layers, {100 * share:.1f} % of weights" if count else DASH


def _pair(row: dict[str, Any]) -> str:
    weight, activation = (str(row[key] or "fp") for key in ("weight_bits", "input_bits"))
    return f"W{weight}A{activation}"


def layer_rows(layers: Layers) -> list[tuple[str, list[Cell | None]]]:
    """Every layer, a cell for each bit-width."""
    tables = [{row["layer"]: row for row in rows} for rows in layers.values()]
    names = dict.fromkeys(name for table in tables for name in table)
    return [(name, [_cell(table[name]) if name in table else None for table in tables]) for name in names]


def _cell(row: dict[str, Any]) -> Cell:
    codes = np.array(row["codes"], float)
    if len(codes) > _BARS:
        codes = codes.reshape(_BARS, -1).sum(1)
    heights = np.rint(100 * codes / max(codes.max(), 1)).astype(int).tolist() if len(codes) else []
    return Cell(_pair(row), f"{row['error']:.2g}", tuple(heights))
