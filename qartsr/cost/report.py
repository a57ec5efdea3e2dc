"""A model's cost: one row per bit-width, where parameters and operations are, and both as text.

Beside them stands Table 2 of QArtSR (2503.05584), and the parts of its floating-point row (PassionSR, 2411.17106,
Table 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from qartsr.config import Bits
from qartsr.cost.convention import Line, branches, full_precision, quantized
from qartsr.cost.package_size import package_size
from qartsr.cost.subject import Subject, qartsr_method, text_encoder
from qartsr.cost.trace import Work, trace
from qartsr.errors import QartsrError
from qartsr.models import Backbone
from qartsr.quantize import plan
from qartsr.synthetic import blank, folder_size

TEXT_ENCODER = "text encoder"


class Component(NamedTuple):
    """One component; ``runs``: whether the model needs it to upscale an image."""

    name: str
    runs: bool
    layers: dict[str, tuple[int, int]]
    """type of layer -> parameters, multiply-accumulates"""

    @property
    def params(self) -> int:
        """All parameters."""
        return sum(params for params, _ in self.layers.values())

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return sum(macs for _, macs in self.layers.values())


def components(
    places: Mapping[str, tuple[str, ...]], model: Iterable[Work], text_encoder: Iterable[Work]
) -> tuple[Component, ...]:
    """Those of ``places`` (:attr:`Backbone.components`), and the text encoder if there is any of it."""
    works, text = list(model), list(text_encoder)
    inside = [
        _component(name, True, [work for work in works if f"{work.name}.".startswith(prefixes)])
        for name, prefixes in places.items()
    ]
    return (*inside, _component(TEXT_ENCODER, False, text)) if text else tuple(inside)


def _component(name: str, runs: bool, works: Iterable[Work]) -> Component:
    layers: dict[str, tuple[int, int]] = {}
    for work in works:
        params, macs = layers.get(work.kind, (0, 0))
        layers[work.kind] = params + work.params, macs + work.macs
    return Component(name, runs, dict(sorted(layers.items(), key=lambda item: (-item[1][1], -item[1][0]))))


class Published(NamedTuple):
    """A row: parameters in millions, operations in billions (two per multiply-accumulate), at 512 x 512."""

    params_m: float
    ops_g: float


TABLE_2 = {
    "fp": Published(1303, 4523),
    "w4a4": Published(122, 531),
    "w3a3": Published(92, 398),
    "w2a2": Published(62, 266),
}
SIZE = 512
"""Side of the output the table is about."""

PARTS = {
    "UNet": Published(865.785, 2 * 339.241),
    "VAE": Published(83.614, 2 * 1781.123),
    "tagger": Published(160.335, 2 * 126.591),
    "text encoder": Published(193.055, 2 * 14.856),
}
"""PassionSR gives thousands of parameters and multiply-accumulates."""


class Row(NamedTuple):
    """One bit-width, counted as the paper counts, and the bytes of the real file."""

    bits: str
    lines: tuple[Line, ...]
    branch_macs: float
    """of the low-rank branches, in multiply-accumulates of 32 bits; not in the paper's operations"""
    file_bytes: int
    """of the package; in row ``fp``: of the model's checkpoint in fp16"""
    paper: Published | None

    @property
    def params_m(self) -> float:
        """Millions of parameters of 32 bits."""
        return sum(line.params for line in self.lines) / 1e6

    @property
    def ops_g(self) -> float:
        """Billions of operations of 32 bits, two per multiply-accumulate."""
        return 2 * sum(line.macs for line in self.lines) / 1e9


class Cost(NamedTuple):
    """Everything about one model at one output size."""

    model: str
    size: int
    rank: int
    rows: tuple[Row, ...]
    components: tuple[Component, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values; see docs/cost.md for the keys."""
        whole = self.rows[0].file_bytes
        return {
            "model": self.model,
            "size": self.size,
            "rank": self.rank,
            "rows": [_row(row, whole) for row in self.rows],
            "components": [_component_json(component) for component in self.components],
        }


def cost_of(subject: Subject, size: int, bits: Iterable[Bits], rank: int) -> Cost:
    """Count ``subject`` for a ``size`` x ``size`` output: row ``fp``, then one per bit-width. Allocates no weights.

    Raises QartsrError for a size the model cannot take.
    """
    model = blank(subject.architecture)
    if size < model.facts.multiple or size % model.facts.multiple:
        raise QartsrError(f"{size} is no size of this model", "--size", f"give a multiple of {model.facts.multiple}")
    works = trace(model, torch.empty(1, 3, size, size, device="meta"))
    text = text_encoder() if subject.published else ()
    published = TABLE_2 if subject.published and size == SIZE else {}
    fp = Row("fp", full_precision(model.titles, works, text), 0.0, folder_size(model, "fp16"), published.get("fp"))
    rows = [_quantized(subject, model, works, chosen, rank, published.get(str(chosen))) for chosen in bits]
    return Cost(subject.name, size, rank, (fp, *rows), components(model.components, works, text))


def _quantized(
    subject: Subject, model: Backbone, works: tuple[Work, ...], bits: Bits, rank: int, paper: Published | None
) -> Row:
    decided = plan(model, qartsr_method(subject.profile, rank), bits)
    branch = branches(works, decided).macs * 16 / 32
    size = package_size(model, decided, {"profile": subject.profile})
    parts = {entry.name.split(".")[0] for entry in decided.layers if not entry.float}
    lines = quantized((title for part, title in model.titles.items() if part in parts), works, decided, bits)
    return Row(str(bits), lines, branch, size, paper)


def _row(row: Row, whole: int) -> dict[str, Any]:
    paper = row.paper
    return {
        "bits": row.bits,
        "params_m": row.params_m,
        "ops_g": row.ops_g,
        "paper_params_m": paper.params_m if paper else None,
        "paper_ops_g": paper.ops_g if paper else None,
        "params_deviation": row.params_m / paper.params_m - 1 if paper else None,
        "ops_deviation": row.ops_g / paper.ops_g - 1 if paper else None,
        "low_rank_ops_g": 2 * row.branch_macs / 1e9,
        "file_bytes": row.file_bytes,
        "file_mb": row.file_bytes / 1e6,
        "times_smaller_than_fp16": whole / row.file_bytes,
        "lines": [
            {"name": line.name, "params_m": line.params / 1e6, "ops_g": 2 * line.macs / 1e9} for line in row.lines
        ],
    }


def _component_json(component: Component) -> dict[str, Any]:
    return {
        "component": component.name,
        "runs": component.runs,
        "params": component.params,
        "macs": component.macs,
        "layers": [{"type": kind, "params": params, "macs": macs} for kind, (params, macs) in component.layers.items()],
    }


_NOTE = """\
Parameters and operations are counted as the paper's Table 2 counts them: b bits are b / 32 of one. "low-rank G" are
operations of the low-rank branches, which that table leaves out. "file MB": the package as written; in row fp the
model's checkpoint in fp16, without a text encoder. None of this is time: see benchmarks/."""


def as_text(cost: Cost) -> str:
    """The rows, what they are made of, and the components."""
    title = f"{cost.model}, {cost.size} x {cost.size} output, low-rank branches of rank {cost.rank}"
    return "\n\n".join([title, _grid_rows(cost.rows), _NOTE, _line_grid(cost.rows), _component_grid(cost.components)])


def _grid_rows(rows: Sequence[Row]) -> str:
    head = ("bits", "params M", "paper", "ops G", "paper", "low-rank G", "file MB", "of fp16")
    return _grid(head, [_grid_row(row, rows[0].file_bytes) for row in rows])


def _grid_row(row: Row, whole: int) -> tuple[str, ...]:
    params, ops = (f"{value:g}" for value in row.paper) if row.paper else ("", "")
    counted = (f"{row.params_m:.1f}", params, f"{row.ops_g:.1f}", ops, f"{2 * row.branch_macs / 1e9:.1f}")
    return row.bits, *counted, f"{row.file_bytes / 1e6:.1f}", f"1 / {whole / row.file_bytes:.2f}"


def _line_grid(rows: Iterable[Row]) -> str:
    body = [
        (row.bits, line.name, f"{line.params / 1e6:.3f}", f"{2 * line.macs / 1e9:.3f}")
        for row in rows
        for line in row.lines
    ]
    return _grid(("bits", "made of", "params M", "ops G"), body, left=2)


def _component_grid(components: Iterable[Component]) -> str:
    body = []
    for component in components:
        name = component.name if component.runs else f"{component.name} (not run)"
        body.append((name, "all", f"{component.params / 1e6:.3f}", f"{component.macs / 1e9:.3f}"))
        body += [
            ("", kind, f"{params / 1e6:.3f}", f"{macs / 1e9:.3f}") for kind, (params, macs) in component.layers.items()
        ]
    return _grid(("component", "layers", "params M", "GMAC"), body, left=2)


def _grid(head: Sequence[str], body: Iterable[Sequence[str]], left: int = 1) -> str:
    """Columns as wide as their widest cell; the first ``left`` flush left, the others right."""
    cells = [head, *body]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
