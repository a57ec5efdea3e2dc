"""The figures: schedule (paper: Fig. 5), crops (Fig. 6), stages inside the model (Fig. 7), errors by layer."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from qartsr.files import write_bytes
from qartsr.models.sd_unet import SDUNet

Array = NDArray[Any]
_INK, _MUTED, _LINE, _BLUE, _ORANGE = "#1c2029", "#626a79", "#dfe2e8", "#2a78d6", "#e0602a"


def schedule(alphas: Sequence[float], timesteps: Sequence[int], out: Path) -> None:
    """Alpha-bar and lambda = sqrt(1 - alpha-bar) over the scheduler's index; the table's timesteps are marked."""
    alpha = np.asarray(alphas)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for heights, colour, name in ((alpha, _BLUE, "ᾱ"), (np.sqrt(1 - alpha), _ORANGE, "λ = √(1-ᾱ)")):
            axes.plot(heights, color=colour, linewidth=1.8, label=name)
            for step in timesteps:
                axes.plot(step, heights[step], "o", color=colour, markersize=6, markeredgecolor="white")
        for step in timesteps:
            side = ("right", -6) if step > 500 else ("left", 8)
            text = f"T = {step}\nλ {np.sqrt(1 - alpha[step]):.4f}"
            axes.annotate(text, (step, 0.5), (side[1], 0), textcoords="offset points", ha=side[0], va="center")
            axes.axvline(step, color=_LINE, linewidth=1, zorder=0)
        axes.set(xlabel="scheduler index T", title="The schedule")
        axes.legend(frameon=False, loc="center", bbox_to_anchor=(0.72, 0.2))

    _save(out, (6.2, 3.4), draw)


def crops(rows: Sequence[tuple[str, Sequence[Array]]], titles: Sequence[str], out: Path, scale: int = 1) -> None:
    """Pictures (H, W, 3) uint8 in rows (name, pictures) under the methods' titles, not resampled."""
    side = rows[0][1][0].shape[0]
    width, height = len(titles) * side * scale, len(rows) * side * scale
    heads = [textwrap.fill(title, max(10, side * scale // 7)) for title in titles]  # 7 pixels a letter of 8 points
    lines = max(head.count("\n") for head in heads)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(rows), len(titles), squeeze=False)
        for line, (name, pictures) in zip(axes, rows, strict=True):
            for place, (panel, picture) in enumerate(zip(line, pictures, strict=True)):
                panel.imshow(picture, interpolation="nearest")
                _bare(panel)
                if place == 0:
                    panel.set_ylabel(name, color=_MUTED, fontsize=8)
        for panel, head in zip(axes[0], heads, strict=True):
            panel.set_title(head, fontsize=8, loc="center", pad=4)

    _save(out, (width / 100 + 0.4, height / 100 + 0.45 + 0.15 * lines), draw, dpi=110)


def stages(files: Mapping[int, Path], bits: str, out: Path) -> None:
    """One row per timestep: Z_L, epsilon, its error, Z_H, its error, the image. Every column has one scale."""
    found = {step: load_file(path) for step, path in files.items()}
    columns = ("z_l", "eps", "eps_error", "z_h", "z_h_error")
    titles = ("|Z_L|", "|ε|", f"|error of ε|, {bits}", "|Z_H|", f"|error of Z_H|, {bits}", f"image, {bits}")

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(found), len(titles), squeeze=False)
        for place, key in enumerate(columns):
            norm = _shared([tensors[key] for tensors in found.values()])
            for line, tensors in zip(axes, found.values(), strict=True):
                shown = line[place].imshow(tensors[key], cmap="magma", norm=norm)
            bar = figure.colorbar(shown, ax=axes[:, place], location="bottom", fraction=0.03, pad=0.02)
            ends = [float(end) for end in (norm.vmin, norm.vmax) if end is not None]
            bar.set_ticks(ends, labels=[f"{end:.1e}" for end in ends], fontsize=7)
            bar.minorticks_off()
        for line, (step, tensors) in zip(axes, found.items(), strict=True):
            shown = line[-1].imshow((tensors["image"].transpose(1, 2, 0) + 1) / 2)
            line[0].set_ylabel(f"T = {step}", color=_INK)
        room = figure.colorbar(shown, ax=axes[:, -1], location="bottom", fraction=0.03, pad=0.02)
        room.ax.set_visible(False)  # keeps the last column in line with the others
        for panel in axes.flat:
            _bare(panel)
        for panel, title in zip(axes[0], titles, strict=True):
            panel.set_title(title, fontsize=9, loc="center", pad=4)

    _save(out, (10.6, 1.75 * len(found) + 0.6), draw, dpi=90)


def _shared(maps: Sequence[Array]) -> LogNorm:
    """From the smallest to the largest value of all, at most four decades."""
    top = max(float(values.max()) for values in maps)
    return LogNorm(max(min(float(values.min()) for values in maps), top / 1e4), top)


def heat_map(errors: Mapping[str, Mapping[str, float]], title: str, out: Path) -> None:
    """Relative error of every layer (columns, in inference order) for every method (rows), logarithmic."""
    layers = sorted(next(iter(errors.values())), key=lambda layer: (_part(layer), layer))
    table = np.array([[max(errors[method][layer], 1e-4) for layer in layers] for method in errors])
    parts = [_part(layer) for layer in layers]
    starts = [n for n, part in enumerate(parts) if n == 0 or parts[n - 1] != part]
    middles = [(start + end - 1) / 2 for start, end in zip(starts, [*starts[1:], len(layers)], strict=True)]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        norm = LogNorm(table.min(), table.max())
        shown = axes.imshow(table, aspect="auto", cmap="magma", norm=norm, interpolation="nearest")
        axes.set_yticks(range(len(errors)), list(errors))
        axes.set_xticks(middles, [tuple(SDUNet.regions)[parts[n]].replace(" ", "\n") for n in starts])
        axes.tick_params(length=0)
        for start in starts[1:]:
            axes.axvline(start - 0.5, color="white", linewidth=1.5)
        axes.set_title(title)
        axes.grid(visible=False)
        figure.colorbar(shown, ax=axes, fraction=0.02, pad=0.01)

    _save(out, (11, 3.6), draw, dpi=100)


def rate_quality(points: Mapping[str, Sequence[tuple[str, float, float]]], out: Path) -> None:
    """PSNR to FP in dB over megabytes; ``points``: bit-width -> (method, megabytes, PSNR). Best are top and left."""
    shown = {bits: found for bits, found in points.items() if found}
    every = [y for found in shown.values() for _, _, y in found] or [0.0]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, max(1, len(shown)), squeeze=False, sharex=True, sharey=True)[0]
        gap = max(1e-9, max(every) - min(every)) / max(20, *map(len, shown.values()), 0)
        for panel, (bits, found) in zip(panels, shown.items(), strict=False):
            front = sorted(_front(found))
            panel.step([x for x, _ in front], [y for _, y in front], where="post", color=_BLUE, alpha=0.4, linewidth=1)
            panel.plot([x for _, x, _ in found], [y for _, _, y in found], "o", color=_BLUE, markersize=4)
            panel.margins(x=0.08, y=0.08)
            ordered = sorted(found, key=lambda point: (point[2], point[1]))
            for (name, *place), height in zip(ordered, _apart([y for _, _, y in ordered], gap), strict=True):
                panel.annotate(
                    name, place, (1.04, height), textcoords=("axes fraction", "data"), fontsize=7, va="center",
                    arrowprops={"arrowstyle": "-", "color": _MUTED, "linewidth": 0.4, "shrinkB": 2, "relpos": (0, 0.5)},
                )  # fmt: skip
            panel.set(xlabel="package, MB", title=bits)
        panels[0].set_ylabel("PSNR to FP, dB")

    _save(out, (4.2 * max(1, len(shown)), 4.2), draw)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Heights of labels in a column for points of rising ``heights``: near them, none above the last, ``gap`` apart."""
    placed = list(heights)
    for n in range(1, len(placed)):
        placed[n] = max(placed[n], placed[n - 1] + gap)
    placed[-1] = heights[-1]
    for n in reversed(range(len(placed) - 1)):
        placed[n] = min(placed[n], placed[n + 1] - gap)
    return placed


def _front(points: Sequence[tuple[str, float, float]]) -> list[tuple[float, float]]:
    """Points that no other beats in both respects."""
    return [(x, y) for _, x, y in points if not any(a <= x and b >= y and (a, b) != (x, y) for _, a, b in points)]


def _part(layer: str) -> int:
    """The number of its region: the first that it begins with."""
    return next(number for number, begins in enumerate(SDUNet.regions.values()) if layer.startswith(begins))


def _bare(panel: Axes) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    panel.grid(visible=False)
    for spine in panel.spines.values():
        spine.set_visible(False)


def _save(out: Path, size: tuple[float, float], draw: Callable[[Figure], None], dpi: int = 120) -> None:
    """PNG with 256 colours: small enough for a repository."""
    with _style():
        figure = Figure(size, layout="constrained", facecolor="white", dpi=dpi)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None}, dpi=dpi)
    image = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    write_bytes(out, buffer.getvalue())


@contextmanager
def _style() -> Iterator[None]:
    settings: Any = {
        "font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
        "axes.edgecolor": _LINE, "axes.titlelocation": "left", "text.color": _INK, "axes.labelcolor": _MUTED,
        "xtick.color": _MUTED, "ytick.color": _MUTED, "axes.titlesize": 10, "axes.grid": True, "grid.color": _LINE,
        "axes.axisbelow": True,
    }  # fmt: skip
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


Row = tuple[str, list[NDArray[Any]]]


def crop_rows(compared: Path, samples: Path, sets: Sequence[str], methods: Sequence[str], bits: str) -> list[Row]:
    """(name, pictures (H, W, 3)): network input, every method, HR. The first image of each set, of the first seed."""
    restored = {method: load_file(compared / f"{method}-{bits}" / "images.safetensors") for method in methods}
    rows: list[Row] = []
    for name in sets:
        windows = load_file(samples / "sets" / f"{name}.safetensors")
        first = min(key.partition("/")[0] for key in windows)
        pictures = [windows[f"{first}/l"][-3:], *(restored[m][name][0] for m in methods), windows[f"{first}/h"]]
        rows.append((name, [picture.transpose(1, 2, 0) for picture in pictures]))
    return rows
