"""A model of clips out of a model of images: the latent of the frame before lies in the UNet's input channels.

That is DLoRAL's layout (one step, the VAE unchanged) without its flow: at f = 4 a motion of some LR pixels is one of as
many latent pixels, within reach of the UNet's convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.models.interface import Backbone
from qartsr.models.sd_unet.diffusers_imports import UNet2DConditionModel
from qartsr.models.sd_unet.model import SDUNet


def video_backbone(model: Backbone, frames: int = 2) -> SDUNet:
    """``model`` with a UNet that takes the latents of ``frames`` frames, the last one now; the VAE is shared.

    The weights of the new channels are zero, so the result restores every frame as ``model`` does. Raises QartsrError
    for a model of clips and for one without a UNet.
    """
    if not isinstance(model, SDUNet) or model.facts.frames != 1:
        what = "is a model of clips already" if isinstance(model, SDUNet) else f"is of kind {model.kind}"
        raise QartsrError(what, "the model", "start from a model of images with a UNet")
    weight = model.unet.conv_in.weight.detach()
    new = weight.new_zeros(weight.shape[0], (frames - 1) * model.facts.latents, *weight.shape[2:])
    unet = widened(model.unet, torch.cat([new, weight], 1))
    return SDUNet(unet, model.vae, model.context.clone(), model.timestep, model.align).eval()


def widened(unet: UNet2DConditionModel, weight: Tensor) -> UNet2DConditionModel:
    """``unet`` with another ``weight`` (out, in, 3, 3) of its ``conv_in``, whose input channels may be more."""
    wide = UNet2DConditionModel.from_config({**unet.config, "in_channels": weight.shape[1]})
    wide.load_state_dict({**unet.state_dict(), "conv_in.weight": weight})
    return wide.to(weight)
