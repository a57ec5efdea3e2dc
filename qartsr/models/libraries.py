"""diffusers' two networks, without the remarks of what diffusers imports along."""

from __future__ import annotations

import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # where pyiqa brought it, it misses a kernel nobody uses

from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: E402

__all__ = ["AutoencoderKL", "UNet2DConditionModel"]
