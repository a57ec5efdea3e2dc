"""Schema of params.yaml: typed, frozen, closed, free of torch. That of the experiments is in ``experiment``."""

from qartsr.config.bits import Bits, parse_bits
from qartsr.config.load import load_config, load_params, parse_params
from qartsr.config.schema import Params, lr_scale

__all__ = ["Bits", "Params", "load_config", "load_params", "lr_scale", "parse_bits", "parse_params"]
