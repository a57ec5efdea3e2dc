"""Changes of basis between the input and the weight of a layer that preserve the layer's function."""

from qartsr.transforms.channel import FLOOR, ChannelAffine, ChannelScale, ChannelSearch, initial_phi, phi_candidates
from qartsr.transforms.family import TRANSFORMS, Transform
from qartsr.transforms.hadamard import Hadamard, block_order, rotated
from qartsr.transforms.none import NoTransform

__all__ = [
    "FLOOR",
    "TRANSFORMS",
    "ChannelAffine",
    "ChannelScale",
    "ChannelSearch",
    "Hadamard",
    "NoTransform",
    "Transform",
    "block_order",
    "initial_phi",
    "phi_candidates",
    "rotated",
]
