"""Stable Diffusion's UNet and VAE as a one-step backbone: facts, verbs, segments, constants, known architectures."""

from qartsr.models.sd_unet.model import SDUNet
from qartsr.models.sd_unet.sample import sample_backbone

__all__ = ["SDUNet", "sample_backbone"]
