"""What the package of a method would weigh: methods of equal bits do not store equal bytes."""

from __future__ import annotations

from torch import Tensor

from qartsr.config import parse_bits
from qartsr.config.experiment import CommonConfig, MethodRow
from qartsr.cost import package_size
from qartsr.models import OneStepSR
from qartsr.study.start import decide


def package_bytes(model: OneStepSR, row: MethodRow, common: CommonConfig, bits: str, lq: Tensor) -> int:
    """Bytes of the file, everything in it; ``lq`` (N, 3, H, W) in [-1, 1] decides ranks where inputs share them out."""
    return package_size(model, decide(model, row, common, parse_bits(bits), lq), {})
