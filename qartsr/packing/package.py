"""A package: one safetensors file with everything needed to run a quantized model (docs/artifact.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from qartsr.artifact.graphs import TENSOR
from qartsr.artifact.header import SCHEMA_VERSION, Head, Header, is_folded, metadata, read_head, sealed
from qartsr.errors import QartsrError, short
from qartsr.files import write_bytes
from qartsr.models import Backbone, architecture, constants
from qartsr.models.defaults import usual_defaults
from qartsr.packing.pack import pack_model
from qartsr.packing.structure import entries, structure
from qartsr.quantize import Plan

_BESIDE = {TENSOR}
"""Tensors that are none of the model's."""
_DTYPES = {torch.uint8: {"U8"}, torch.float32: {"F16", "F32"}}


def write_package(path: Path, model: Backbone, plan: Plan, provenance: dict[str, Any]) -> None:
    """Pack ``model``, quantized as ``plan`` says and folded or not, into one file, atomically; same inputs, same bytes.

    ``provenance``: JSON values. Raises QartsrError for values that are not finite, ValueError when plan and model
    differ.
    """
    specs, tensors = pack_model(model)
    folded = {name: tuple(constant.value.shape) for name, constant in constants(model).items()}
    if set(specs) != {layer.name for layer in plan.layers if not layer.float and not is_folded(layer.name, folded)}:
        raise ValueError("the model is not quantized as the plan says")
    recipes, layers = entries(plan, specs)
    header = Header(
        checksum="",
        schema_version=SCHEMA_VERSION,
        method=plan.method,
        bits=plan.bits,
        architecture=architecture(model),
        recipes=recipes,
        layers=layers,
        constants=folded,
        provenance=provenance,
    )
    write_bytes(path, sealed(save(tensors, metadata(header))))


def add_graphs(path: Path, graphs: bytes) -> None:
    """Put ``graphs``, of :func:`qartsr.export.skeleton`, into a package: it runs without torch then.

    Those that were there are replaced. Raises QartsrError, see :func:`read_head`.
    """
    header = read_head(path).header.model_copy(update={"schema_version": SCHEMA_VERSION})
    tensors = {**_tensors(path), TENSOR: torch.frombuffer(bytearray(graphs), dtype=torch.uint8)}
    write_bytes(path, sealed(save(tensors, metadata(header))))


def read_header(path: Path) -> dict[str, Any]:
    """The header of a package, its bytes verified. Raises QartsrError, see :func:`qartsr.artifact.header.read_head`."""
    return read_head(path).header.model_dump(mode="json")


@usual_defaults()
def open_package(path: Path) -> tuple[Head, Backbone]:
    """The head of a package, and its model with every tensor on the meta device: validated, nothing allocated.

    Checked are the file's bytes, the structure that the header describes, and against it the shape and type of every
    tensor. Raises QartsrError naming what does not fit.
    """
    head = read_head(path)
    model = structure(head.header, str(path))
    _check_tensors(model, head, str(path))
    return head, model


@usual_defaults()
def load_package(path: Path) -> Backbone:
    """The model, in evaluation mode on the CPU, ready to run. Raises QartsrError, see :func:`open_package`."""
    _, model = open_package(path)
    stored = _tensors(path)
    state = {name: value.float() if value.is_floating_point() else value for name, value in stored.items()}
    state.pop(TENSOR, None)
    _check_values(state, str(path))
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise QartsrError(f"cannot be read ({error})", str(path), "fetch or make the package again") from error


def _check_values(state: dict[str, Tensor], where: str) -> None:
    """No number that no maker writes: one that is not finite, a scale or a divisor (phi) that is not above 0."""
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        positive = {"grid": value[:1], "phi": value}.get(name.rpartition(".")[2], value[:0])
        if bool(value.isfinite().all()) and bool((positive > 0).all()):
            continue
        fault = "a scale that is not above 0" if bool(value.isfinite().all()) else "a value that is not finite"
        raise QartsrError(f"tensor {short(name)} holds {fault}", where, "fetch or make the package again")


def _check_tensors(model: Backbone, head: Head, where: str) -> None:
    expected = model.state_dict()
    for name in sorted((expected.keys() | head.table.keys()) - _BESIDE):
        if name not in head.table or name not in expected:
            problem = "lacks" if name in expected else "has the unknown"
            raise QartsrError(f"{problem} tensor {short(name)}", where, "fetch or make the package again")
        entry, wanted = head.table[name], expected[name]
        if entry.shape != tuple(wanted.shape) or entry.dtype not in _DTYPES[wanted.dtype]:
            found = f"{entry.dtype} {list(entry.shape)}"
            raise QartsrError(
                f"tensor {short(name)} is {found}, not {list(wanted.shape)}", where, "fetch or make the package again"
            )
