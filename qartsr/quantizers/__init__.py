"""Uniform quantizers: a configuration becomes a module, every module has a grid, every grid has codes."""

from qartsr.quantizers.fake import fake_quantize, range_grid
from qartsr.quantizers.family import QUANTIZERS, NoQuantizer, Quantizer
from qartsr.quantizers.gaussian import CLIP, KAPPA, Gaussian, TokenGaussian, gaussian_grid
from qartsr.quantizers.gptq import GPTQ, gptq
from qartsr.quantizers.grid import Grid, decode, encode
from qartsr.quantizers.grouped import Grouped, Sliced, SlicedOwn, group_size, spread_parts
from qartsr.quantizers.lbq import LBQ
from qartsr.quantizers.lsq import LSQ
from qartsr.quantizers.own_range import OwnRange
from qartsr.quantizers.ranges import symmetric_grid
from qartsr.quantizers.rounding import ROUNDINGS, IntegerBase, LearnedRounding, Nearest, Rounding
from qartsr.quantizers.static import Static
from qartsr.quantizers.stats import RangeStats, joined_stats, stats_of, weighted_stats

__all__ = [
    "CLIP",
    "GPTQ",
    "KAPPA",
    "LBQ",
    "LSQ",
    "QUANTIZERS",
    "ROUNDINGS",
    "Gaussian",
    "Grid",
    "Grouped",
    "IntegerBase",
    "LearnedRounding",
    "Nearest",
    "NoQuantizer",
    "OwnRange",
    "Quantizer",
    "RangeStats",
    "Rounding",
    "Sliced",
    "SlicedOwn",
    "Static",
    "TokenGaussian",
    "decode",
    "encode",
    "fake_quantize",
    "gaussian_grid",
    "gptq",
    "group_size",
    "joined_stats",
    "range_grid",
    "spread_parts",
    "stats_of",
    "symmetric_grid",
    "weighted_stats",
]
