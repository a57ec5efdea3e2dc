"""Schema of params.yaml and of experiments/params.yaml: typed, frozen, closed, free of torch."""

from qartsr.config.bits import Bits, parse_bits
from qartsr.config.experiment import Experiments
from qartsr.config.load import load_config, load_params, parse_params
from qartsr.config.schema import Params

__all__ = ["Bits", "Experiments", "Params", "load_config", "load_params", "parse_bits", "parse_params"]
