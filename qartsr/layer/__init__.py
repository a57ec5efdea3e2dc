"""One layer, many methods."""

from qartsr.layer.operation import Convolution, Op, Product, operation_of
from qartsr.layer.quant_layer import QuantLayer, original, roles

__all__ = ["Convolution", "Op", "Product", "QuantLayer", "operation_of", "original", "roles"]
