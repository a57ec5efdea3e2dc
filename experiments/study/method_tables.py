"""Tables 3 and 4: methods by bits and test set, and QArtSR's components one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.study.table import Column, Line, Table, Value, summary, tied
from qartsr.files import read_json

Cells = Mapping[tuple[str, str], Mapping[str, Any]]
"""(method, bits) -> what its stage wrote."""
OURS = "qartsr"
COLUMNS = (
    Column("psnr", "PSNR ↑", 3, 1),
    Column("ssim", "SSIM ↑", 4, 1),
    Column("lpips_random", "LPIPS-random ↓", 4, -1),
    Column("psnr_to_fp", "PSNR to FP ↑", 2, 1),
    Column("lpips_random_to_fp", "LPIPS-random to FP ↓", 4, -1),
)
OVER_TIME = (
    Column("ewarp_tvl1", "E*warp (TV-L1) ↓", 3, -1),
    Column("psnr_neighbours", "PSNR of neighbours", 2),
)
"""Of clips, beside the others."""
_SIZE = Column("megabytes", "package, MB", 2)
_CRITERIA = ("psnr_to_fp", "lpips_random_to_fp")


def load_cells(folder: Path, methods: Sequence[str], bits: Sequence[str]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Results of methods by bits from ``folder/METHOD-BITS/results.json``."""
    return {(m, b): read_json(folder / f"{m}-{b}" / "results.json") for m in methods for b in bits}


def value(cell: Mapping[str, Any], dataset: str, key: str) -> Value:
    """Mean and spread over seeds of a set's mean."""
    return summary([run["means"][dataset][key] for run in cell["seeds"].values()])


def method_table(
    cells: Cells,
    fp: Mapping[str, Any],
    bicubic: Mapping[str, Any],
    sets: Mapping[str, str],
    sizes: Mapping[tuple[str, str], int],
    title: str = "Table 3: methods at equal budget",
    columns: Sequence[Column] = COLUMNS,
) -> Table:
    """Table 3. ``fp`` and ``bicubic``: set -> metric -> value; ``sets``: set -> the paper's set it stands for.

    ``sizes``: (method, bits) -> bytes of its package.
    """
    lines, full = [], f"FP, T = {next(iter(cells.values()))['timestep']}"
    for name, stands_for in sets.items():
        label = f"{name} (for {stands_for})"
        for reference, scores in (("bicubic", bicubic[name]), (full, fp[name])):
            lines.append(_reference(label, reference, scores, columns))
        for bits in dict.fromkeys(b for _, b in cells):
            for (method, b), cell in cells.items():
                if b == bits:
                    values = {column.key: value(cell, name, column.key) for column in columns}
                    values[_SIZE.key] = Value(sizes[method, b] / 1e6)
                    lines.append(Line((label, bits, cell["title"]), values, f"{name} {bits}"))
    rates = "; ".join(
        f"{cell['title']} {b} {cell['rate']:g}" for (_, b), cell in cells.items() if cell["tried"]
    )  # fmt: skip
    notes = (*budget_notes(cells), f"Rates chosen: {rates}.", *method_sentences(method_effects(cells, fp)))
    return Table(title, ("set", "bits", "method"), (*columns, _SIZE), tuple(lines), notes)


def rate_points(cells: Cells, sizes: Mapping[tuple[str, str], int]) -> dict[str, list[tuple[str, float, float]]]:
    """Bits -> (title, megabytes of the package, PSNR to FP in dB, mean over sets and seeds) of every method."""
    found: dict[str, list[tuple[str, float, float]]] = {}
    for (method, bits), cell in cells.items():
        point = (cell["title"], sizes[method, bits] / 1e6, value(cell, "all", "psnr_to_fp").mean)
        found.setdefault(bits, []).append(point)
    return found


def budget_notes(cells: Cells) -> tuple[str, ...]:
    """What was equal, read from the results themselves."""
    trained = [cell for cell in cells.values() if cell["rate"]]
    samples = sorted({run["samples"] for cell in trained for run in cell["seeds"].values()})
    tried = sorted({len(cell["tried"]) for cell in trained if cell["tried"]})
    seeds = len(next(iter(cells.values()))["seeds"])
    shorter = sorted({cell["tried_with"] for cell in trained if len(cell["tried"]) > 1} - set(samples))
    length = f" for {' or '.join(map(str, shorter))} samples each" if shorter else ""
    rates = (
        f"{' or '.join(map(str, tried))} learning rates tried{length} on the first seed, judged on pairs not trained on"
        if max(tried, default=0) > 1
        else "the learning rate that the whole method chose"
    )
    return (
        f"Mean ± standard deviation over {seeds} seeds (calibration pairs, their order, choice of rate).",
        f"Equal for all trained rows: calibration pairs; {' or '.join(map(str, samples))} samples seen; {rates}.",
        "Best of a group in bold, and what is tied with it (means no further apart than the larger spread).",
    )


def method_effects(cells: Cells, fp: Mapping[str, Any]) -> dict[str, Any]:
    """(c) is QArtSR best or tied best, per bits and criterion; (e) PSNR against HR within 1 dB of FP at W4A4."""
    found: dict[str, Any] = {}
    for bits in dict.fromkeys(b for _, b in cells):
        for key in _CRITERIA:
            better = next(column.better for column in COLUMNS if column.key == key)
            values = {m: value(cell, "all", key) for (m, b), cell in cells.items() if b == bits}
            first = max(values, key=lambda m: better * values[m].mean)
            state = "best" if first == OURS else "tied" if tied(values[OURS], values[first]) else "not best"
            found[f"c_{bits}_{key}"] = {
                "effect": f"QArtSR best or tied best in {key} at {bits}", "holds": state != "not best", "state": state,
                "first": first, "first_mean": round(values[first].mean, 4), "ours_mean": round(values[OURS].mean, 4),
            }  # fmt: skip
    losses = {
        name: round(scores["psnr"] - value(cells[OURS, "w4a4"], name, "psnr").mean, 4)
        for name, scores in fp.items()
        if (OURS, "w4a4") in cells
    }
    found["e"] = {
        "effect": "QArtSR W4A4 within 1 dB of FP against HR",
        "loss": losses,
        "holds": max(losses.values()) < 1,
    }
    return found


def method_sentences(effects: Mapping[str, Any]) -> tuple[str, ...]:
    """The effects in words."""
    words = []
    for name, found in effects.items():
        if name == "e":
            losses = ", ".join(f"{key} {loss:+.3f} dB" for key, loss in found["loss"].items())
            words.append(f"{found['effect']}: loss {losses}; {'holds' if found['holds'] else 'does not hold'}.")
        else:
            words.append(
                f"{found['effect']}: {found['state']} ({found['ours_mean']:g}; first is {found['first']}, "
                f"{found['first_mean']:g})."
            )
    return tuple(words)


def ablation_table(cells: Cells, ours: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """Table 4: every variant beside the whole of QArtSR, means over all sets. ``ours``: bits -> QArtSR's cell."""
    lines = []
    for bits, whole in ours.items():
        rows = {name: cell for (name, b), cell in cells.items() if b == bits} | {OURS: whole}
        for cell in rows.values():
            values = {column.key: value(cell, "all", column.key) for column in COLUMNS}
            lines.append(Line((bits, f"T = {cell['timestep']}", cell["title"]), values, bits))
    effects = ablation_effects(cells, ours)
    notes = (
        *budget_notes(cells),
        "Means over all test sets. FP in the columns `to FP` is the row's own backbone, so they compare what "
        "quantization destroyed, also across timesteps.",
        *(
            f"{found['effect']}: {found['gain_psnr_to_fp']:+.3f} dB to FP; {found['state']}."
            for found in effects.values()
        ),
    )
    return Table(title, ("bits", "backbone", "row"), COLUMNS, tuple(lines), notes)


def ablation_effects(cells: Cells, ours: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """(d) what the whole gains over each variant: helps, makes no difference (tied), or harms."""
    found = {}
    for (name, bits), cell in cells.items():
        whole, part = value(ours[bits], "all", "psnr_to_fp"), value(cell, "all", "psnr_to_fp")
        gain = whole.mean - part.mean
        state = "no difference beyond the spread" if tied(whole, part) else "helps" if gain > 0 else "harms"
        found[f"d_{bits}_{name}"] = {
            "effect": f"QArtSR over “{cell['title']}” at {bits}", "gain_psnr_to_fp": round(gain, 4), "state": state,
            "holds": state == "helps",
        }  # fmt: skip
    return found


def _reference(label: str, title: str, scores: Mapping[str, float], columns: Sequence[Column]) -> Line:
    values = {column.key: Value(scores[column.key]) for column in columns if not column.key.endswith("_to_fp")}
    return Line((label, "fp32", title), values, label, competes=False)
