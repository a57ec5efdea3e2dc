"""Losses on images in [-1, 1]: LPIPS, MSE and L1, weighted by configuration."""

from qartsr.losses.image import ImageLoss
from qartsr.losses.lpips import LPIPS, lpips_name

__all__ = ["LPIPS", "ImageLoss", "lpips_name"]
