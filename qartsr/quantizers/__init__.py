"""Quantizers: tensors onto uniform grids."""

from qartsr.quantizers.base import QUANTIZERS, AbstractQuantizer
from qartsr.quantizers.bounds import LBQ, MinMax, Percentile
from qartsr.quantizers.grid import Grid, decode, encode
from qartsr.quantizers.lsq import LSQ
from qartsr.quantizers.none import NoQuantizer
from qartsr.quantizers.sample import Sample, tensor_sample

__all__ = [
    "LBQ",
    "LSQ",
    "QUANTIZERS",
    "AbstractQuantizer",
    "Grid",
    "MinMax",
    "NoQuantizer",
    "Percentile",
    "Sample",
    "decode",
    "encode",
    "tensor_sample",
]
