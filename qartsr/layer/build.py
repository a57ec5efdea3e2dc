"""From a float layer and its recipe to the quantized structure; values come later, from calibration."""

from __future__ import annotations

from torch import nn

from qartsr.branches import BRANCHES
from qartsr.config.parts import BiasConfig, LayerRecipe, NoQuantizerConfig
from qartsr.layer.op import op_of
from qartsr.layer.quant_layer import Parts, QuantLayer
from qartsr.quantizers import QUANTIZERS, NoQuantizer, OwnRange, Quantizer
from qartsr.transforms import TRANSFORMS


def build_layer(module: nn.Module, name: str, recipe: LayerRecipe, weight_bits: int, input_bits: int) -> QuantLayer:
    """The structure ``recipe`` describes around ``module``'s weight and bias, on its device and in its dtype.

    Raises ValueError for a layer that is not a plain convolution or linear layer.
    """
    op = op_of(module)
    weight, bias = module.weight, module.bias
    assert isinstance(weight, nn.Parameter) and (bias is None or isinstance(bias, nn.Parameter))  # op_of has checked
    shape = tuple(weight.shape)
    per_channel = getattr(recipe.weight, "granularity", "tensor") == "channel"
    ranges = (shape[0], *(1,) * (len(shape) - 1)) if per_channel else ()
    parts = Parts(
        weight_quantizer=QUANTIZERS.build(recipe.weight, bits=weight_bits, shape=ranges),
        input_quantizer=QUANTIZERS.build(recipe.input, bits=input_bits, shape=()),
        bias_quantizer=_bias_quantizer(recipe.bias),
        transform=TRANSFORMS.build(recipe.transform, shape=shape),
        skip=BRANCHES.build(recipe.skip, shape=shape, name=name),
        adapter=BRANCHES.build(recipe.adapter, shape=shape, name=name),
    )
    layer = QuantLayer(op, weight, bias, parts).to(weight.device, weight.dtype)
    layer.train(module.training)
    return layer


def _bias_quantizer(config: BiasConfig) -> Quantizer:
    return OwnRange(config.bits) if config.bits else NoQuantizer(NoQuantizerConfig(), bits=0, shape=())
