"""A residual block of diffusers on integer kernels, of each half of which only codes and one output touch memory.

Normalisation and SiLU are inside the quantization, the time embedding and the shortcut inside the product.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from qartsr.engines.triton_layer import KernelLayer
from qartsr.models.sd_unet.diffusers_imports import ResnetBlock2D


class FusedBlock(nn.Module):
    """``shortcut(x) + conv2(SiLU(norm2(conv1(SiLU(norm1(x))) + proj(SiLU(temb)))))``, its parts under their old names.

    Somebody who watches or replaces a norm by a forward hook (tiles share their statistics so) is served unfused.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.time_emb_proj = block.time_emb_proj
        self.conv_shortcut = block.conv_shortcut

    def forward(self, input_tensor: Tensor, temb: Any = None) -> Tensor:
        """(B, C, H, W) and the time embedding (B, D), if the block takes one -> (B, O, H, W)."""
        x, nothing = input_tensor, input_tensor.new_empty(0)
        bias = x.new_zeros(1, 1) if self.time_emb_proj is None else self.time_emb_proj(F.silu(temb))
        hidden = _through(self.norm1, self.conv1, x, bias, nothing)
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return _through(self.norm2, self.conv2, hidden, x.new_zeros(1, 1), shortcut)


def fusable(block: Any) -> bool:
    """Whether ``block`` is a residual block that computes what :class:`FusedBlock` computes, with kernel layers."""
    return (
        type(block) is ResnetBlock2D
        and isinstance(block.conv1, KernelLayer)
        and isinstance(block.conv2, KernelLayer)
        and isinstance(block.norm1, nn.GroupNorm)
        and isinstance(block.norm2, nn.GroupNorm)
        and isinstance(block.nonlinearity, nn.SiLU)
        and block.upsample is None
        and block.downsample is None
        and (block.time_embedding_norm == "default" or block.time_emb_proj is None)
        and block.time_embedding_norm != "scale_shift"
        and not block.skip_time_act
        and block.output_scale_factor == 1
    )


def _through(norm: nn.GroupNorm, layer: KernelLayer, x: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    if norm._forward_hooks:
        return layer.extended(F.silu(norm(x)), bias, residual)
    return layer.activated(x, norm, bias, residual)
