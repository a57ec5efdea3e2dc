"""Changes of basis between the input and the weight of a layer that preserve the layer's function."""

from qartsr.transforms.channel import FLOOR, ChannelAffine, ChannelScale, initial_phi
from qartsr.transforms.family import TRANSFORMS, Transform
from qartsr.transforms.none import NoTransform

__all__ = ["FLOOR", "TRANSFORMS", "ChannelAffine", "ChannelScale", "NoTransform", "Transform", "initial_phi"]
