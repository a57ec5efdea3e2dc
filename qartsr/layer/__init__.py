"""The quantized layer."""

from qartsr.layer.build import build_layer, weight_groups
from qartsr.layer.op import Conv2dOp, LayerOp, LinearOp, op_of
from qartsr.layer.quant_layer import Parts, QuantLayer, RotatedBranch

__all__ = [
    "Conv2dOp",
    "LayerOp",
    "LinearOp",
    "Parts",
    "QuantLayer",
    "RotatedBranch",
    "build_layer",
    "op_of",
    "weight_groups",
]
