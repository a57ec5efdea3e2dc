"""What of the UNet never sees the image, at one prompt and one timestep.

Three kinds of modules: keys and values of cross-attention (``to_k`` and ``to_v`` of the prompt), the time embedding,
and each residual block's projection of it. In Stable Diffusion 2.1 that is 53.4 M of 865.9 M parameters; what they
give has 1.9 M values.
"""

from __future__ import annotations

from typing import Any

from qartsr.models.sd_unet.diffusers_imports import Attention, ResnetBlock2D

_PLAIN = {
    "addition_embed_type": None,
    "class_embed_type": None,
    "cross_attention_norm": None,
    "encoder_hid_dim_type": None,
    "resnet_time_scale_shift": "default",
}
"""UNets that differ in these may mix prompt, time and image in other ways."""


def constant_shapes(unet: Any, tokens: int) -> dict[str, tuple[int, ...]]:
    """What can be folded in a UNet, and the shape of each constant for a prompt of ``tokens`` tokens.

    (1, tokens, C) for ``to_k`` and ``to_v`` of cross-attention, (1, C) for ``time_emb_proj``, and (1, 0), nothing at
    all, for the time embedding, which only those projections read. In the model's order, before or after folding;
    empty for a UNet that is not built like Stable Diffusion's.
    """
    if any(unet.config.get(key, plain) != plain for key, plain in _PLAIN.items()):
        return {}
    shapes: dict[str, tuple[int, ...]] = {"unet.time_embedding": (1, 0)}
    for name, module in unet.named_modules(prefix="unet"):
        if isinstance(module, Attention) and module.is_cross_attention:
            shapes |= {f"{name}.{part}": (1, tokens, module.inner_kv_dim) for part in ("to_k", "to_v")}
        elif isinstance(module, ResnetBlock2D) and module.time_emb_proj is not None:
            shapes[f"{name}.time_emb_proj"] = (1, module.out_channels)
    return shapes
