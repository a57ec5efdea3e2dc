"""What the methods' public code computed for small random tensors: listed and read, nothing about it is known here.

Shapes, bits, paddings and settings come from the files, so that another set in their place is compared as well.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import ROOT

FOLDER = Path(os.environ.get("QARTSR_FIXTURES", ROOT.parent / "shared" / "fixtures")) / "methods"
MISSING = f"the methods' tensors are not at {FOLDER}; set QARTSR_FIXTURES to the folder that holds them"

Facts = dict[str, Any]
Kind = Callable[[Facts, Mapping[str, Sequence[int]]], bool]
"""What the file says of a case, its tensors by name with their shapes -> whether a test is made for it."""


def _has(*names: str) -> Kind:
    return lambda _, found: all(name in found for name in names)


def _lacks(first: str, *names: str) -> Kind:
    return lambda _, found: first in found and not any(name in found for name in names)


KINDS: dict[str, dict[str, Kind]] = {
    "passionsr_quantizer": {"bounds": _has("half_step_beyond"), "running": _has("ranges")},
    "passionsr_let_conv2d": {"layer": _has("scale_after_2")},
    "passionsr_let_linear": {"layer": _has("scale_after_2")},
    "passionsr_attention": {"products": _has("scale_qk")},
    "quantvsr_quantizer": {
        "weight": _has("lower", "upstream"),
        "narrow": _lacks("lower", "upstream"),
        "input": _lacks("zero", "lower"),
    },
    "quantvsr_conv2d": {"layer": _has("lba")},
    "quantvsr_linear": {"layer": _has("lba")},
    "quantvsr_stca": {
        "complexity": _has("x"),
        "ranks": _has("ranks"),
        "observed": _has("inputs", "c_spatial"),
        "left out": _lacks("inputs", "c_spatial"),
    },
    "quantvsr_hadamard": {"matrix": _has("random")},
    "efficientdm_quantizer": {
        "weight": lambda _, found: math.prod(found["delta"]) > 1,
        "input": lambda _, found: math.prod(found["delta"]) == 1,
    },
    "efficientdm_qalora_conv2d": {"layer": _has("dequantized")},
    "efficientdm_qalora_linear": {"layer": _has("dequantized")},
    "lsq": {"step": _has("stepped_adam")},
    "lsqplus": {"input": _has("beta"), "weight": _lacks("step", "beta")},
    "svdquant_group": {
        "tensor": lambda facts, _: "bits" not in facts,
        "weight": _has("codes"),
        "input": lambda facts, found: "codes" not in found and "bits" in facts,
    },
    "svdquant_smooth": {"layer": _has("alpha_beta")},
    "gptq": {"layer": _has("ordered")},
}
"""File -> kinds of its cases; every kind has a test, and every case is of one kind (see test_coverage.py)."""


class Case(NamedTuple):
    """One case of a file: ``facts`` of its own (bits, padding, ...), ``config`` of the file, and its tensors."""

    facts: Facts
    config: Facts
    tensors: dict[str, Tensor]

    @property
    def levels(self) -> int:
        """2**bits - 1."""
        return int(2 ** self.facts["bits"] - 1)


@cache
def header(file: str) -> Facts:
    """The JSON of a file."""
    found: Facts = json.loads((FOLDER / f"{file}.json").read_text())
    return found


@cache
def _tensors(file: str) -> dict[str, Tensor]:
    return load_file(FOLDER / f"{file}.safetensors")


def shapes(file: str, case: str) -> dict[str, Sequence[int]]:
    """The tensors of a case."""
    found = header(file)["tensors"].items()
    return {key.partition("/")[2]: entry["shape"] for key, entry in found if key.partition("/")[0] == case}


def kinds(file: str, case: str) -> list[str]:
    """What a case is; one kind, if all is well."""
    facts = header(file)["cases"][case]
    return [kind for kind, fits in KINDS.get(file, {}).items() if fits(facts, shapes(file, case))]


def load(file: str, case: str) -> Case:
    """A case with its tensors."""
    tensors = {key.partition("/")[2]: value for key, value in _tensors(file).items() if key.startswith(f"{case}/")}
    return Case(header(file)["cases"][case], header(file)["config"], tensors)


def each(kind: str, *files: str) -> pytest.MarkDecorator:
    """Run a test on every case of a kind: parameter ``place`` is (file, case). Skips where the tensors are absent."""
    if not FOLDER.is_dir():
        return pytest.mark.parametrize("place", [pytest.param(None, marks=pytest.mark.skip(reason=MISSING))])
    found = [(f, c) for f in files for c in header(f)["cases"] if kinds(f, c) == [kind]]
    return pytest.mark.parametrize("place", found, ids=[f"{f}-{c}" for f, c in found])
