"""Stable Diffusion 3's diffusion transformer and VAE as a one-step backbone (TSD-SR's form, 2411.18263)."""

from qartsr.models.sd3_dit.model import SD3DiT
from qartsr.models.sd3_dit.sample import sample_dit

__all__ = ["SD3DiT", "sample_dit"]
