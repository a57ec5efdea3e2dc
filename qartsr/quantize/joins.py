"""Where a UNet joins a skip connection to its main path: the inputs that consist of two tensors."""

from __future__ import annotations

from typing import Any

from torch import nn


def joins(model: nn.Module) -> dict[str, int]:
    """Layer name -> channels of the main path, which come first; the rest is the skip connection.

    They are ``conv1`` and ``conv_shortcut`` of every ResNet block in ``unet.up_blocks`` (diffusers): its first block is
    fed by the block before it, the others by their predecessor.
    """
    unet: Any = model.get_submodule("unet")
    found: dict[str, int] = {}
    width: int = unet.config.block_out_channels[-1]
    for number, block in enumerate(unet.up_blocks):
        for place, resnet in enumerate(block.resnets):
            for layer in ("conv1", "conv_shortcut"):
                if getattr(resnet, layer, None) is not None:
                    found[f"unet.up_blocks.{number}.resnets.{place}.{layer}"] = width
            width = resnet.out_channels
    return found
