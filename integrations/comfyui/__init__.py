"""ComfyUI node: copy or link this folder to ``ComfyUI/custom_nodes/qartsr``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qartsr import OneStepSRPipeline

_load = lru_cache(maxsize=1)(OneStepSRPipeline.from_pretrained)


class UpscaleWithQartsr:
    """IMAGE (B, H, W, C) in [0, 1] -> IMAGE (B, 4 H, 4 W, C)."""

    CATEGORY, FUNCTION = "image/upscaling", "upscale"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """What the node asks for."""
        package = ("STRING", {"default": "model.safetensors", "tooltip": "a package, a folder or models:/NAME@ALIAS"})
        engine = (["auto", "openvino", "simulated", "triton", "integer"],)
        return {"required": {"image": ("IMAGE",), "package": package, "engine": engine}}

    def upscale(self, image: Tensor, package: str, engine: str) -> tuple[Tensor]:
        """One after the other. Raises QartsrError, whose sentence ComfyUI shows."""
        pipe = _load(package, engine=engine)
        made = []
        for each in image:
            wide = pipe((each.float().clamp(0, 1) * 65535).round().cpu().numpy().astype(np.uint16)).wide
            assert wide is not None  # 16 bits in, 16 bits out
            made.append(torch.from_numpy(wide.astype(np.float32) / 65535))
        return (torch.stack(made),)


NODE_CLASS_MAPPINGS = {"UpscaleWithQartsr": UpscaleWithQartsr}
NODE_DISPLAY_NAME_MAPPINGS = {"UpscaleWithQartsr": "Upscale with qartsr"}
