"""Low-rank matrices: the skip branch in 16 bits, and the adapter merged into the quantized weight."""

from qartsr.branches.family import BRANCHES, Branch, Layout, NoBranch, Op, branch_layout
from qartsr.branches.hsvd import HSVD, hierarchical, layout, searched_layout
from qartsr.branches.lora import LoRA
from qartsr.branches.svd import SVD

__all__ = [
    "BRANCHES",
    "HSVD",
    "SVD",
    "Branch",
    "Layout",
    "LoRA",
    "NoBranch",
    "Op",
    "branch_layout",
    "hierarchical",
    "layout",
    "searched_layout",
]
