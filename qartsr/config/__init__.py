"""Schema of params.yaml: typed, frozen, closed, free of torch. That of the experiments is in ``experiment``."""

from qartsr.config.bits import Bits, parse_bits
from qartsr.config.load import load_config, load_params, parse_params
from qartsr.config.schema import Params

__all__ = ["Bits", "Params", "load_config", "load_params", "parse_bits", "parse_params"]
