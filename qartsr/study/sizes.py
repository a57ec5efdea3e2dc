"""What the package of a method would weigh: methods of equal bits do not store equal bytes."""

from __future__ import annotations

from torch import Tensor

from qartsr.config import parse_bits
from qartsr.config.method import CommonConfig, MethodRow
from qartsr.cost import package_size
from qartsr.models import Backbone
from qartsr.quantize import plan


def package_bytes(model: Backbone, row: MethodRow, common: CommonConfig, bits: str, lq: Tensor) -> int:
    """Bytes of the file, everything in it; ``lq`` (N, 3, H, W) in [-1, 1] decides ranks where inputs share them out."""
    return package_size(model, plan(model, row.planned(common), parse_bits(bits), lq), {})
