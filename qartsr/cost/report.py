"""A model's cost: one row per bit-width, and where parameters and operations are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from qartsr.config import Bits
from qartsr.cost.components import Component, components
from qartsr.cost.convention import Line, branches, full_precision, quantized
from qartsr.cost.method import qartsr_method
from qartsr.cost.package_size import package_size
from qartsr.cost.paper import SIZE, TABLE_2, Published
from qartsr.cost.subject import Subject
from qartsr.cost.text_encoder import text_encoder
from qartsr.cost.trace import Work, trace
from qartsr.errors import QartsrError
from qartsr.models import Backbone
from qartsr.quantize import plan
from qartsr.synthetic import blank, folder_size


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
            "components": [_component(component) for component in self.components],
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
    return Row(str(bits), quantized(works, decided, bits), branch, size, paper)


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


def _component(component: Component) -> dict[str, Any]:
    return {
        "component": component.name,
        "runs": component.runs,
        "params": component.params,
        "macs": component.macs,
        "layers": [{"type": kind, "params": params, "macs": macs} for kind, (params, macs) in component.layers.items()],
    }
