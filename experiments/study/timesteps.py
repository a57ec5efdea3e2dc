"""What MaxMin quantization destroys at each timestep: Table 1, and the theorem behind TRQ over many timesteps.

Two scopes. ``unet``: the UNet alone is quantized and fed with the floating-point latent, the theorem's premise.
``model``: everything is quantized.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from experiments.study.measure import DIGITS, Judge, means
from qartsr.config import parse_bits
from qartsr.config.method import CommonConfig, MethodRow
from qartsr.files import write_bytes
from qartsr.models import Backbone
from qartsr.quantize import Plan, look, plan, quantize

SCOPES = ("unet", "model")


class Latents(NamedTuple):
    """Norms at one timestep, root mean squares over all elements: the theorem's two sides."""

    zh_error: float
    """of Z_H_q - Z_H"""
    zh: float
    """of Z_H"""
    eps_error: float
    """of epsilon_q - epsilon"""
    eps: float
    """of epsilon"""


def table_row(
    model: Backbone, row: MethodRow, common: CommonConfig, bits: str, lq: Tensor, test: Tensor, judge: Judge
) -> dict[str, Any]:
    """Quality in both scopes, and the errors of Z_H and epsilon. ``lq``: for calibration; ``test``: (n, 3, s, s)."""
    decided = plan(model, row.planned(common), parse_bits(bits), lq)
    statistics = look(model, decided, lq)
    found: dict[str, Any] = {}
    for scope in SCOPES:
        copied = quantize(model, decided, statistics, scoped(decided, scope, model.denoiser))
        found[scope] = means(judge.scores(judge.images(copied)))
        if scope == "unet":
            found["latents"] = _rounded(latents(model, copied, test))
    return found


def probe_row(
    model: Backbone, row: MethodRow, common: CommonConfig, bits: Sequence[str], lq: Tensor, test: Tensor
) -> dict[str, Any]:
    """Errors of Z_H and epsilon per bit-width, UNet alone, and the schedule's numbers; inputs are (N, 3, H, W)."""
    step, errors = model.step, {}
    for name in bits:
        decided = plan(model, row.planned(common), parse_bits(name), lq)
        copied = quantize(model, decided, look(model, decided, lq), scoped(decided, "unet", model.denoiser))
        errors[name] = _rounded(latents(model, copied, test))
    return {"lambda": round(step.noise, DIGITS), "kappa": round(step.amplification, DIGITS), "bits": errors}


@torch.no_grad()
def latents(model: Backbone, other: Backbone, test: Tensor) -> Latents:
    """Both models step from the same floating-point Z_L of ``test`` (N, 3, H, W)."""
    sums = torch.zeros(4, dtype=torch.float64)
    count = 0
    for low in test:
        z_l = model.encode(low[None])
        true, noisy = model.predict(z_l), other.predict(z_l)
        z_h = model.step(z_l, true)
        parts = (model.step(z_l, noisy) - z_h, z_h, noisy - true, true)
        sums += torch.stack([part.double().square().sum() for part in parts]).cpu()
        count += z_l.numel()
    return Latents(*(sums / count).sqrt().tolist())


def scoped(decided: Plan, scope: str, denoiser: str) -> list[str]:
    """Layers that are quantized in a scope."""
    return [layer.name for layer in decided.layers if scope == "model" or layer.name.startswith(f"{denoiser}.")]


def _rounded(found: Latents) -> dict[str, float]:
    return {name: float(f"{value:.6g}") for name, value in found._asdict().items()}


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
