"""The figures: schedule (paper: Fig. 5), crops (Fig. 6), stages inside the model (Fig. 7), errors by layer."""

from __future__ import annotations

import io
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

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(rows), len(titles), squeeze=False)
        for line, (name, pictures) in zip(axes, rows, strict=True):
            for place, (panel, picture) in enumerate(zip(line, pictures, strict=True)):
                panel.imshow(picture, interpolation="nearest")
                _bare(panel)
                if place == 0:
                    panel.set_ylabel(name, color=_MUTED)
        for panel, title in zip(axes[0], titles, strict=True):
            panel.set_title(title, fontsize=9, loc="center", pad=4)

    _save(out, (width / 100 + 0.4, height / 100 + 0.4), draw, dpi=110)


def stages(files: Mapping[int, Path], bits: str, out: Path) -> None:
    """One row per timestep: Z_L, epsilon, its error, Z_H, its error, the image. Every column has one scale."""
    found = {step: load_file(path) for step, path in files.items()}
    columns = ("z_l", "eps", "eps_error", "z_h", "z_h_error")
    titles = ("|Z_L|", "|ε|", f"|ε error|, {bits}", "|Z_H|", f"|Z_H error|, {bits}", "image")

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(found), len(titles), squeeze=False)
        for line, (step, tensors) in zip(axes, found.items(), strict=True):
            for panel, key in zip(line, columns, strict=False):
                scale = [value[key] for value in found.values()]
                norm = LogNorm(
                    max(min(v.min() for v in scale), max(v.max() for v in scale) / 1e4), max(v.max() for v in scale)
                )
                shown = panel.imshow(tensors[key], cmap="magma", norm=norm)
                figure.colorbar(shown, ax=panel, fraction=0.045, pad=0.02).ax.tick_params(labelsize=6)
                _bare(panel)
            line[-1].imshow((tensors["image"].transpose(1, 2, 0) + 1) / 2)
            _bare(line[-1])
            line[0].set_ylabel(f"T = {step}", color=_INK)
        for panel, title in zip(axes[0], titles, strict=True):
            panel.set_title(title, fontsize=9, loc="center", pad=4)

    _save(out, (12.4, 2.0 * len(found) + 0.2), draw, dpi=90)


def heat_map(errors: Mapping[str, Mapping[str, float]], title: str, out: Path) -> None:
    """Relative error of every layer (columns, in the model's order) for every method (rows), logarithmic."""
    layers = list(next(iter(errors.values())))
    table = np.array([[max(errors[method][layer], 1e-4) for layer in layers] for method in errors])
    parts = [".".join(layer.split(".")[: 3 if layer.startswith("vae") else 2]) for layer in layers]
    starts = [n for n, part in enumerate(parts) if n == 0 or parts[n - 1] != part]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        shown = axes.imshow(
            table, aspect="auto", cmap="magma", norm=LogNorm(table.min(), table.max()), interpolation="nearest"
        )
        axes.set_yticks(range(len(errors)), list(errors))
        axes.set_xticks(starts, [parts[n] for n in starts], rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
        for start in starts[1:]:
            axes.axvline(start - 0.5, color="white", linewidth=0.7)
        axes.set_title(title)
        axes.grid(visible=False)
        figure.colorbar(shown, ax=axes, fraction=0.02, pad=0.01)

    _save(out, (11, 3.9), draw, dpi=100)


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
