"""Equivalent transforms between a layer's input and its weight."""

from qartsr.transforms.base import TRANSFORMS, AbstractTransform, Factors
from qartsr.transforms.channel import ChannelAffine, ChannelScale
from qartsr.transforms.none import NoTransform

__all__ = ["TRANSFORMS", "AbstractTransform", "ChannelAffine", "ChannelScale", "Factors", "NoTransform"]
