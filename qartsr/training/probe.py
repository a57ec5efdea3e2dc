"""How much of Z_H, of the predicted noise and of the image MaxMin quantization destroys at a timestep.

Theorem of QArtSR section 3.2: the error of Z_H falls with sqrt(1 - abar_T). Measured here in two scopes: the UNet
alone quantized, fed with the floating-point latent (the theorem's premise), and the whole model.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from qartsr.config import parse_bits
from qartsr.config.parts import BiasConfig, LayerRecipe, MethodConfig, MinMaxConfig
from qartsr.config.retrain import ProbeConfig
from qartsr.data.pairs import Pair, to_unit
from qartsr.errors import DivergedError
from qartsr.metrics.luma import psnr_y
from qartsr.models import Backbone, load_model
from qartsr.quantize import observe, plan, quantize
from qartsr.training.loop import Curves
from qartsr.training.trq import Job, retrained


def psnr(model: Backbone, pair: Pair) -> float:
    """PSNR (Y, dB) of the restored 8-bit image against HR."""
    with torch.no_grad():
        image = model.restore(to_unit(pair.lq)[None].to(model.device))
    if not bool(image.isfinite().all()):
        raise DivergedError(
            "gives a picture that is no numbers", "the trained model", "train with a lower learning rate"
        )
    restored = ((image + 1) * 127.5).round().clamp(0, 255)[0].cpu()
    return psnr_y(restored / 255, pair.hr.float() / 255)


MAXMIN = MethodConfig(
    name="maxmin",
    layer=LayerRecipe(
        weight=MinMaxConfig(granularity="channel"), input=MinMaxConfig(granularity="tensor"), bias=BiasConfig(bits=0)
    ),
)


class Probe(NamedTuple):
    """One row: a timestep at a bit-width. Errors are relative Frobenius norms, PSNR is on Y against HR in dB."""

    timestep: int
    bits: str
    lambda_: float
    kappa: float
    zh_error: float
    eps_error: float
    psnr: float
    psnr_unet_only: float
    psnr_fp: float


def probed(job: Job, config: ProbeConfig, asked: Path) -> Iterator[Backbone]:
    """The backbone at every probed timestep, largest first, among them the one that ``retrain`` left in ``asked``.

    The others are retrained for ``config.steps``, but for the backbone's own.
    """
    for timestep in sorted({*config.timesteps, job.config.timestep}, reverse=True):
        if timestep == job.config.timestep:  # laid out as training laid it out: sums in the same order
            yield load_model(asked).to(job.means.world.device).to(memory_format=torch.channels_last)
        else:
            steps = config.steps * (timestep != job.backbone.timestep)
            yield retrained(job, timestep, steps, Curves(lambda values, step: None))


def probe(model: Backbone, bits: Sequence[str], calibration: Sequence[Tensor], test: Sequence[Pair]) -> list[Probe]:
    """Quantize copies of ``model`` (MaxMin) at each bit-width and compare them with it on the test images.

    ``calibration``: network inputs (B, 3, H, W) in [-1, 1], for the ranges of activations.
    """
    step = model.step
    rows = []
    psnr_fp = _mean([psnr(model, pair) for pair in test])
    statistics = observe(model, calibration)
    for name in bits:
        decided = plan(model, MAXMIN, parse_bits(name))
        layers = [layer.name for layer in decided.layers]
        whole = quantize(model, decided, statistics)
        unet_only = quantize(model, decided, statistics, [n for n in layers if n.startswith(f"{model.denoiser}.")])
        zh_error, eps_error = _errors(model, unet_only, test)
        psnr_whole, psnr_unet = (_mean([psnr(copied, pair) for pair in test]) for copied in (whole, unet_only))
        errors = (step.noise, step.amplification, zh_error, eps_error)
        rows.append(Probe(model.timestep, name, *errors, psnr_whole, psnr_unet, psnr_fp))
    return rows


def centre(pair: Pair, side: int) -> Pair:
    """The middle of a pair, at most ``side`` pixels wide and high: attention costs the fourth power of the side."""
    tops = [max(0, (length - side) // 2) // 16 * 16 for length in pair.hr.shape[1:]]
    rows, columns = (slice(top, top + side) for top in tops)
    return Pair(pair.name, pair.hr[:, rows, columns], pair.lq[:, rows, columns])


def table(rows: Sequence[Probe]) -> str:
    """All rows as CSV, six decimals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.rstrip("_") for field in Probe._fields])
    writer.writerows([[round(v, 6) if isinstance(v, float) else v for v in row] for row in rows])
    return text.getvalue()


def quality(rows: Sequence[Probe]) -> dict[str, dict[str, float]]:
    """FP quality and the errors of Z_H of every timestep, ``t1``: {psnr_fp, zh_error_w4a4, ...}."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        entry = found.setdefault(f"t{row.timestep}", {"psnr_fp": round(row.psnr_fp, 4)})
        entry[f"zh_error_{row.bits}"] = round(row.zh_error, 6)
    return found


def _errors(model: Backbone, quantized: Backbone, test: Sequence[Pair]) -> tuple[float, float]:
    """Relative error of Z_H and of epsilon on the same floating-point Z_L, over all test images together."""
    sums = torch.zeros(4, dtype=torch.float64)
    with torch.no_grad():
        for pair in test:
            z_l = model.encode(to_unit(pair.lq)[None].to(model.device))
            true, noisy = model.predict(z_l), quantized.predict(z_l)
            z_true, z_noisy = model.step(z_l, true), model.step(z_l, noisy)
            parts = (z_noisy - z_true, z_true, noisy - true, true)
            sums += torch.stack([part.double().square().sum().cpu() for part in parts])
    return float((sums[0] / sums[1]).sqrt()), float((sums[2] / sums[3]).sqrt())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
