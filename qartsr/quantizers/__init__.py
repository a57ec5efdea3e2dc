"""Uniform quantizers: a configuration becomes a module, every module has a grid, every grid has codes."""

from qartsr.quantizers.fake import fake_quantize, range_grid
from qartsr.quantizers.family import QUANTIZERS, Quantizer
from qartsr.quantizers.grid import Grid, decode, encode
from qartsr.quantizers.lbq import LBQ
from qartsr.quantizers.lsq import LSQ
from qartsr.quantizers.minmax import MinMax, OwnRange, Percentile
from qartsr.quantizers.none import NoQuantizer
from qartsr.quantizers.stats import RangeStats, stats_of, weighted_stats

__all__ = [
    "LBQ",
    "LSQ",
    "QUANTIZERS",
    "Grid",
    "MinMax",
    "NoQuantizer",
    "OwnRange",
    "Percentile",
    "Quantizer",
    "RangeStats",
    "decode",
    "encode",
    "fake_quantize",
    "range_grid",
    "stats_of",
    "weighted_stats",
]
