"""Low-rank branches of a layer's weight."""

from qartsr.branches.base import BRANCHES, AbstractBranch, Operation
from qartsr.branches.lora import LoRA
from qartsr.branches.none import NoBranch
from qartsr.branches.svd import SVD

__all__ = ["BRANCHES", "SVD", "AbstractBranch", "LoRA", "NoBranch", "Operation"]
