"""The bytes of a package that has not been written: its layout follows from architecture and plan.

The model is taken as folded (:func:`qartsr.models.fold_constants`), as the pipeline leaves it.

Two things depend on values, and are taken as training leaves them: phi (and delta, where the recipe has one) differs
from the identity, and a range is not by chance a number of 16 bits (such a tensor would take half its bytes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from qartsr.artifact.header import SCHEMA_VERSION, Header, is_folded, metadata
from qartsr.artifact.spec import LayerSpec
from qartsr.branches import branch_layout
from qartsr.config.parts import HadamardConfig, TransformConfig
from qartsr.layer import weight_groups
from qartsr.models import Backbone, architecture
from qartsr.packing.structure import entries, structure
from qartsr.quantize import LayerPlan, Plan, quantizable
from qartsr.tensor_file import Entry, file_size
from qartsr.transforms import block_order
from qartsr.transforms.family import TRANSFORMS


def package_size(model: Backbone, plan: Plan, provenance: Mapping[str, Any]) -> int:
    """Bytes of the file ``write_package`` makes of ``model``, quantized by ``plan``, folded, and rounded for storage.

    ``model``: still in floating point, on any device. ``provenance``: what the header will say of the origin.
    """
    header = header_of(model, plan, provenance)
    packed = structure(header, "the plan")
    specs = header.specs()
    tensors = {
        name: Entry(_dtype(name, value, specs.get(name.rsplit(".", 2)[0])), tuple(value.shape))
        for name, value in packed.state_dict().items()
    }
    return file_size(tensors, metadata(header))


def spec_of(layer: LayerPlan, shape: tuple[int, ...]) -> LayerSpec:
    """What will be stored of a layer whose weight has this shape."""
    recipe, spent = layer.recipe, branch_layout(layer.recipe.skip, shape)
    quantized = recipe.weight.kind != "none"
    return LayerSpec(
        shape=shape,
        weight_bits=_bits(layer.weight_bits if quantized else 0),
        per_channel=quantized and getattr(recipe.weight, "granularity", "tensor") != "tensor",
        bias_bits=recipe.bias.bits,
        input_bits=_bits(layer.input_bits if recipe.input.kind != "none" else 0),
        transform=TRANSFORMS.answer(recipe.transform, "stored"),
        rank=spent.rank,
        weight_groups=weight_groups(recipe.weight, shape) if quantized else 1,
        input_dynamic=recipe.input.kind == "dynamic",
        input_split=recipe.split,
        input_token=bool(getattr(recipe.input, "token", False)),
        rotation=_rotation(recipe.transform, shape),
        skip_rotated=getattr(recipe.skip, "basis", "weight") == "rotated",
        blocks=(spent.rows, spent.columns),
    )


def _rotation(transform: TransformConfig, shape: tuple[int, ...]) -> int:
    return block_order(shape[1], transform.block) if isinstance(transform, HadamardConfig) else 0


def _bits(bits: int) -> Any:
    """As the closed set of the schema, which checks it."""
    return bits


def header_of(model: Backbone, plan: Plan, provenance: Mapping[str, Any]) -> Header:
    """What :func:`package_size` counts: the header of the file, without its checksum."""
    shapes = {name: _shape(module) for name, module in quantizable(model).items()}
    described = architecture(model)
    folded = model.constant_shapes(described["context"][1])
    if folded:
        described["context"][1] = 0  # as place_constants leaves it
    stored = [layer for layer in plan.layers if not layer.float and not is_folded(layer.name, folded)]
    specs = {layer.name: spec_of(layer, shapes[layer.name]) for layer in stored}
    recipes, layers = entries(plan, specs)
    return Header(
        checksum="",
        schema_version=SCHEMA_VERSION,
        method=plan.method,
        bits=plan.bits,
        architecture=described,
        recipes=recipes,
        layers=layers,
        constants=folded,
        provenance=dict(provenance),
    )


def _shape(module: nn.Module) -> tuple[int, ...]:
    return tuple(module.get_parameter("weight").shape)


def _dtype(name: str, value: torch.Tensor, owner: LayerSpec | None) -> str:
    """Codes are bytes, ranges and sums keep 32 bits, all else is rounded to 16 before it is saved."""
    if value.dtype == torch.uint8:
        return "U8"
    exact = owner is not None and (
        name.endswith((".grid", ".weight.value")) or (name.endswith(".bias.value") and owner.transform == "affine")
    )
    return "F32" if exact else "F16"
