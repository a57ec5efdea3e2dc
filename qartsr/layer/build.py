"""From a float layer and its recipe to the quantized structure; values come later, from calibration."""

from __future__ import annotations

from torch import nn

from qartsr.branches import BRANCHES, Branch
from qartsr.config.parts import AbstractRangesConfig, BiasConfig, LayerRecipe, NoQuantizerConfig, QuantizerConfig
from qartsr.layer.op import op_of
from qartsr.layer.quant_layer import FixedBias, LearnedBias, Parts, QuantLayer, RotatedBranch
from qartsr.quantizers import (
    QUANTIZERS,
    ROUNDINGS,
    Grouped,
    NoQuantizer,
    OwnRange,
    Quantizer,
    Sliced,
    SlicedOwn,
    TokenGaussian,
    group_size,
)
from qartsr.transforms import TRANSFORMS, Hadamard, Transform


def build_layer(module: nn.Module, name: str, recipe: LayerRecipe, weight_bits: int, input_bits: int) -> QuantLayer:
    """The structure ``recipe`` describes around ``module``'s weight and bias, on its device and in its dtype.

    Raises ValueError for a layer that is not a plain convolution or linear layer.
    """
    op = op_of(module)
    weight, bias = module.weight, module.bias
    assert isinstance(weight, nn.Parameter) and (bias is None or isinstance(bias, nn.Parameter))  # op_of has checked
    shape = tuple(weight.shape)
    transform = TRANSFORMS.build(recipe.transform, shape=shape)
    parts = Parts(
        weight_quantizer=_weight_quantizer(recipe.weight, weight_bits, shape),
        input_quantizer=_input_quantizer(recipe, input_bits, shape),
        bias_quantizer=_bias_quantizer(recipe.bias),
        rounding=ROUNDINGS.build(recipe.rounding, shape=shape),
        alignment=LearnedBias(shape[0]) if recipe.bias.learnable else FixedBias(),
        transform=transform,
        skip=_skip(recipe, transform, shape, name),
        adapter=BRANCHES.build(recipe.adapter, shape=shape, name=name),
        headroom=recipe.headroom,
    )
    layer = QuantLayer(op, weight, bias, parts).to(weight.device, weight.dtype)
    layer.train(module.training)
    return layer


def _skip(recipe: LayerRecipe, transform: Transform, shape: tuple[int, ...], name: str) -> Branch:
    branch = BRANCHES.build(recipe.skip, shape=shape, name=name)
    rotates = getattr(recipe.skip, "basis", "weight") == "rotated"
    return RotatedBranch(branch, transform) if rotates and isinstance(transform, Hadamard) else branch


def _weight_quantizer(config: QuantizerConfig, bits: int, shape: tuple[int, ...]) -> Quantizer:
    if not isinstance(config, AbstractRangesConfig) or config.granularity == "tensor":
        return QUANTIZERS.build(config, bits=bits, shape=())
    if config.granularity == "channel":
        return QUANTIZERS.build(config, bits=bits, shape=(shape[0], *(1,) * (len(shape) - 1)))
    groups = weight_groups(config, shape)
    return Grouped(QUANTIZERS.build(config, bits=bits, shape=(shape[0] * groups, 1)), shape[1], shape[1] // groups)


def weight_groups(config: QuantizerConfig, shape: tuple[int, ...]) -> int:
    """Ranges per output channel of a weight of ``shape``."""
    if not isinstance(config, AbstractRangesConfig) or config.granularity != "group":
        return 1
    return shape[1] // group_size(shape[1], config.group)


def _input_quantizer(recipe: LayerRecipe, bits: int, shape: tuple[int, ...]) -> Quantizer:
    if getattr(recipe.input, "token", False):
        return TokenGaussian(bits, len(shape) - 2)
    if not recipe.split:
        return QUANTIZERS.build(recipe.input, bits=bits, shape=())
    channels, tail = shape[1], len(shape) - 2
    if recipe.input.kind == "dynamic":
        return SlicedOwn(bits, recipe.split, channels, tail)
    return Sliced(QUANTIZERS.build(recipe.input, bits=bits, shape=(2, 1)), recipe.split, channels, tail)


def _bias_quantizer(config: BiasConfig) -> Quantizer:
    return OwnRange(config.bits) if config.bits else NoQuantizer(NoQuantizerConfig(), bits=0, shape=())
