"""Stable Diffusion 3's diffusion transformer and VAE as a one-step backbone (TSD-SR's form, 2411.18263)."""

from qartsr.models.sd3_dit.model import SD3DiT

__all__ = ["SD3DiT"]
