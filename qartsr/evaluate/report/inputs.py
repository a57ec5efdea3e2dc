"""What the report shows, read from the folders of the pipeline."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qartsr.errors import QartsrError
from qartsr.evaluate.scenes import Scenes, open_scenes
from qartsr.files import read_json

Table = list[dict[str, str]]


class Inputs(NamedTuple):
    """Folders as the pipeline's stages write them, and what names the run."""

    profile: str
    bits: Sequence[str]
    data: Path
    reference: Path
    evaluated: Path
    metrics: Path
    curves: Path
    receipts: Path
    packages: Path
    mlflow: str = ""
    """address of the server that has the versions and runs, for links; empty or none of http: no links"""
    times: Path | None = None
    """what the stages noted of their duration; it need not be there"""
    commit: str = ""
    """of the project's folder"""


class Subject(NamedTuple):
    """One row of the report: bicubic, the FP model or a bit-width."""

    key: str
    title: str
    folder: Path
    scores: dict[str, float]
    """means over all pictures"""
    sets: dict[str, dict[str, float]]
    """the same for every set of pictures"""
    per_image: dict[str, dict[str, float]]
    bytes: int
    """size on disk; 0 for bicubic"""
    fp16: int
    """what its parameters take in 16 bits, which packages are compared with; 0 where it is not known"""
    receipt: dict[str, Any]
    """uri, sha256, model, version; empty when not published"""


class Contents(NamedTuple):
    """Everything on the page."""

    inputs: Inputs
    scenes: Scenes
    bicubic: Subject
    fp: Subject
    quantized: tuple[Subject, ...]
    unavailable: dict[str, str]

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """All rows: bicubic, FP, bit-widths in the configured order."""
        return (self.bicubic, self.fp, *self.quantized)


def read(inputs: Inputs) -> Contents:
    """Raises QartsrError when an evaluation is missing; receipts and packages may be."""
    scenes = open_scenes(inputs.data)
    model = read_json(inputs.reference / "model.json")
    bicubic = _subject(inputs, "bicubic", "Bicubic", inputs.reference / "bicubic", scenes.dataset, 0)
    fp = _subject(inputs, "fp", "Full precision", inputs.reference / "fp", scenes.dataset, model["bytes"])
    fp = fp._replace(fp16=2 * model["parameters"])
    quantized = tuple(_quantized(inputs, bits, scenes.dataset) for bits in inputs.bits)
    return Contents(inputs, scenes, bicubic, fp, quantized, _unavailable((bicubic, fp, *quantized)))


def read_table(path: Path) -> Table:
    """Rows of a CSV file; none when it does not exist (a phase without steps)."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def _unavailable(subjects: Sequence[Subject]) -> dict[str, str]:
    """Metric -> why a subject has none; the subject is named where another has it."""
    found: dict[str, str] = {}
    for subject in subjects:
        for name, reason in sorted(read_json(subject.folder / "unavailable.json").items()):
            elsewhere = any(name in other.scores for other in subjects)
            found.setdefault(name, f"{subject.title}: {reason}" if elsewhere else reason)
    return found


def _quantized(inputs: Inputs, bits: str, dataset: str) -> Subject:
    package, receipt = inputs.packages / bits / "model.safetensors", inputs.receipts / f"{bits}.json"
    size = package.stat().st_size if package.is_file() else 0
    subject = _subject(inputs, bits, bits.upper(), inputs.evaluated / bits, dataset, size)
    return subject._replace(receipt=read_json(receipt)) if receipt.is_file() else subject


def _subject(inputs: Inputs, key: str, title: str, folder: Path, dataset: str, size: int) -> Subject:
    file = inputs.metrics / f"{key}.json"
    scores = read_json(file).get(dataset, {})
    if "psnr" not in scores:
        do = "list psnr under evaluate.metrics and run the evaluation again"
        raise QartsrError(f"has no PSNR on {dataset}", str(file), do)
    rows = read_table(folder / "per_image.csv")
    per_image = {row["image"]: {n: float(v) for n, v in row.items() if n != "image" and v} for row in rows}
    return Subject(key, title, folder, scores, scores.pop("sets", {}), per_image, size, 0, {})
