"""What is decided before anything is changed: bits, rank and recipe of every layer, as JSON."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from qartsr.branches import searched_layout
from qartsr.config import Bits
from qartsr.config.base import Config
from qartsr.config.parts import AbstractRangesConfig, HSVDConfig, LayerRecipe, MethodConfig, QuantizerConfig
from qartsr.config.policies import STCAConfig, VarianceConfig, VaSMPConfig
from qartsr.errors import QartsrError
from qartsr.layer import op_of
from qartsr.models import Backbone, is_folded
from qartsr.quantize.bit_budgets import allocate_bits, allocate_input_bits, products
from qartsr.quantize.rank_budgets import allocate_ranks, as_voted, complexities, votes
from qartsr.quantize.select import matching, quantizable
from qartsr.transforms import TRANSFORMS

_NO_IMAGES = torch.empty(0, 3, 1, 1)


class LayerPlan(Config):
    """One layer: its full name, bits of weight and input, parts; ``float`` keeps it as it is."""

    name: str
    weight_bits: int = Field(ge=2, le=16)
    input_bits: int = Field(ge=2, le=16)
    recipe: LayerRecipe
    float: bool = False


class Plan(Config):
    """All quantizable layers of a model in the model's own order. Attention's matrix products are not among them."""

    method: str
    bits: str
    layers: tuple[LayerPlan, ...]


def plan(model: Backbone, method: MethodConfig, bits: Bits, images: Tensor = _NO_IMAGES) -> Plan:
    """Decide every layer; ``images`` (N, 3, H, W) in [-1, 1] are run for policies that look at inputs only.

    The bits policies share out the bits of the layers outside ``edge_layers`` and ``float_layers``, the rank policy the
    ranks of all layers but the float ones. Raises QartsrError for a pattern without a layer and for a budget that
    cannot be kept, ValueError for a layer of unknown kind.
    """
    layers = quantizable(model)
    for module in layers.values():
        op_of(module)
    if getattr(method.layer.input, "granularity", "tensor") != "tensor":
        raise QartsrError("inputs have one range per tensor", "method.layer.input", "set granularity: tensor")
    edge = matching(method.edge_layers, layers, "common.edge_layers")
    kept = matching(method.float_layers, layers, "common.float_layers")
    weights = {name: module.get_parameter("weight") for name, module in layers.items() if name not in kept}
    inner = {name: weight for name, weight in weights.items() if name not in edge}
    weight_bits = _weight_bits(inner, method, bits.weight)
    folded = model.constant_shapes(model.context.shape[1])
    running = [name for name in inner if not is_folded(name, folded)]
    input_bits = _input_bits(model, running, method, bits.input, images)
    ranks = _ranks(model, {name: tuple(weight.shape) for name, weight in weights.items()}, method, images)
    splits = _splits(model, method)
    return Plan(
        method=method.name,
        bits=str(bits),
        layers=tuple(
            LayerPlan(
                name=name,
                weight_bits=method.edge_bits if name in edge else weight_bits.get(name, bits.weight),
                input_bits=method.edge_bits if name in edge else input_bits.get(name, bits.input),
                recipe=_searched(
                    _recipe(method, ranks.get(name, 0), splits.get(name, 0), name in edge), weights.get(name)
                ),
                float=name in kept,
            )
            for name in layers
        ),
    )


def patches_needed(plan: Plan) -> dict[str, int]:
    """Layer name -> input patches that its initial values are computed from; layers without need are left out."""
    needed = {layer.name: layer.recipe.patches() for layer in plan.layers if not layer.float}
    return {name: count for name, count in needed.items() if count}


def _weight_bits(weights: Mapping[str, Tensor], method: MethodConfig, bits: int) -> dict[str, int]:
    policy = method.bits_policy
    if not isinstance(policy, VaSMPConfig):
        return {}
    return allocate_bits({name: _mixed(weight, method.layer) for name, weight in weights.items()}, bits, policy)


def _input_bits(model: Backbone, names: list[str], method: MethodConfig, bits: int, images: Tensor) -> dict[str, int]:
    policy = method.input_bits_policy
    if not isinstance(policy, VarianceConfig):
        return {}
    return allocate_input_bits(products(model, images, names), bits, policy)


def _mixed(weight: Tensor, recipe: LayerRecipe) -> Tensor:
    """The weight in a basis that mixes channels, if the recipe has one; factors per channel are not known yet."""
    if not TRANSFORMS.answer(recipe.transform, "mixes"):
        return weight
    return TRANSFORMS.build(recipe.transform, shape=tuple(weight.shape)).weight(weight.detach())


def _searched(recipe: LayerRecipe, weight: Tensor | None) -> LayerRecipe:
    """The recipe with the layout of its hierarchical branch, where that is searched for on the weight."""
    skip = recipe.skip
    if not isinstance(skip, HSVDConfig) or not skip.search or weight is None:
        return recipe
    found = searched_layout(skip, _mixed(weight, recipe) if skip.basis == "rotated" else weight)
    return recipe.model_copy(update={"skip": skip.model_copy(update={"layout": tuple(found)})})


def _ranks(
    model: Backbone, shapes: Mapping[str, tuple[int, ...]], method: MethodConfig, images: Tensor
) -> dict[str, int]:
    policy, rank = method.rank_policy, getattr(method.layer.skip, "rank", 0)
    if not isinstance(policy, STCAConfig):
        return {}
    found = complexities(model, images, list(shapes), policy.frames)
    asked = dict(zip(shapes, votes(found.spatial, policy, found.temporal), strict=True))
    return as_voted(asked, shapes, policy) if policy.budget == "votes" else allocate_ranks(asked, shapes, rank, policy)


def _splits(model: Backbone, method: MethodConfig) -> dict[str, int]:
    """Layer name -> input channels of the first part."""
    if method.split != "halves":
        return model.skip_joins() if method.split else {}
    channels = {name: module.get_parameter("weight").shape[1] for name, module in quantizable(model).items()}
    return {name: count // 2 for name, count in channels.items() if count % 2 == 0}


def _recipe(method: MethodConfig, rank: int, split: int, edge: bool) -> LayerRecipe:
    """The method's recipe with what was decided for one layer; 0: nothing was."""
    recipe = method.layer
    changes = {
        **({"skip": recipe.skip.model_copy(update={"rank": rank})} if rank else {}),
        **({"split": split} if split else {}),
        **({"headroom": method.edge_headroom} if edge else {}),
        **({"weight": _halved(recipe.weight, split)} if split and method.split == "halves" else {}),
    }
    return recipe.model_copy(update=changes)


def _halved(weight: QuantizerConfig, half: int) -> QuantizerConfig:
    """Ranges of their own for both halves of the input channels, ``half`` channels each; smaller groups stay."""
    if not isinstance(weight, AbstractRangesConfig):
        return weight
    size = min(half, weight.group) if weight.granularity == "group" else half
    return weight.model_copy(update={"granularity": "group", "group": size})
