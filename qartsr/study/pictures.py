"""Tensors that figures are drawn from, kept by the stage that has the models: the figures need no model again."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from qartsr.config import parse_bits
from qartsr.config.method import CommonConfig, MethodRow
from qartsr.files import write_bytes
from qartsr.models import Backbone
from qartsr.quantize import look, plan, quantize
from qartsr.study.timesteps import scoped


@torch.no_grad()
def keep_stages(
    model: Backbone, row: MethodRow, common: CommonConfig, bits: str, lq: Tensor, test: Tensor, out: Path
) -> None:
    """``out/stages-tT.safetensors``: what stands between encoder and image, and its error (paper: Fig. 7).

    Magnitudes averaged over channels, (h, w) each: ``z_l``, ``eps``, ``eps_error``, ``z_h``, ``z_h_error``, with the
    UNet alone quantized, fed with the floating-point Z_L of ``test`` (1, 3, H, W); and ``image``, (3, H, W) in [-1, 1].
    """
    decided = plan(model, row.planned(common), parse_bits(bits), lq)
    noisy = quantize(model, decided, look(model, decided, lq), scoped(decided, "unet", model.denoiser))
    z_l = model.encode(test)
    eps, eps_q = model.predict(z_l), noisy.predict(z_l)
    z_h, z_h_q = model.step(z_l, eps), model.step(z_l, eps_q)
    maps = {"z_l": z_l, "eps": eps, "eps_error": eps_q - eps, "z_h": z_h, "z_h_error": z_h_q - z_h}
    tensors = {name: value[0].abs().mean(0).cpu() for name, value in maps.items()}
    tensors["image"] = noisy.decode(z_h_q)[0].clamp(-1, 1).cpu()
    write_bytes(out / f"stages-t{model.timestep}.safetensors", save(tensors))
