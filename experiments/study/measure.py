"""What a method's result is worth: quality on the test windows, the error of each layer, the size of its package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from experiments.study.sets import Windows
from qartsr.config import parse_bits
from qartsr.config.method import CommonConfig, MethodRow
from qartsr.config.training import LPIPSConfig
from qartsr.cost import package_size
from qartsr.data.pairs import to_unit
from qartsr.errors import DivergedError
from qartsr.losses import LPIPS, lpips_name
from qartsr.metrics import Meter
from qartsr.metrics.temporal import ewarp_tvl1, psnr_neighbours
from qartsr.models import Backbone
from qartsr.quantize import plan, quant_layers, quantizable

DIGITS = 6
Scores = dict[str, dict[str, dict[str, float]]]
"""set -> image, or clip -> metric -> value"""


class Restorer(Protocol):
    """What is judged: a backbone, or one that takes other steps."""

    @property
    def device(self) -> torch.device:
        """Where its inputs belong."""
        ...

    def restore(self, lq: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> restored, as large."""
        ...


class Judge:
    """PSNR and SSIM on luma, and the loss's LPIPS, of 8-bit images; each against HR and (``_to_fp``) against FP.

    Without its weights the published LPIPS cannot be measured: with random features it is called ``lpips_random``.
    Of a clip they are means over its frames; beside them stand ``ewarp_tvl1`` by HR's flow and ``psnr_neighbours``.
    """

    def __init__(self, sets: Mapping[str, Windows], lpips: LPIPSConfig, reference: Restorer) -> None:
        self._sets, self._name = sets, lpips_name(lpips)
        self._meter, self._lpips = Meter(("psnr", "ssim")), LPIPS(lpips)
        self._fp = {name: restored(reference, windows.lq) for name, windows in sets.items()}

    def images(self, model: Restorer) -> dict[str, Tensor]:
        """The model's restored windows, uint8 (n, 3, s, s) per set."""
        return {name: restored(model, windows.lq) for name, windows in self._sets.items()}

    def bicubic(self) -> Scores:
        """Of the network's inputs themselves."""
        return self.scores({name: windows.lq[:, -3:] for name, windows in self._sets.items()})

    def scores(self, images: Mapping[str, Tensor]) -> Scores:
        """Of uint8 images (n, 3, s, s) per set."""
        found: Scores = {}
        for name, windows in self._sets.items():
            rows = zip(images[name], windows.hr, self._fp[name], strict=True)
            each = [self._both(image, hr, fp) for image, hr, fp in rows]
            found[name] = {unit: _mean(each[places]) for unit, places in windows.units.items()}
            if windows.length > 1:
                for unit, places in windows.units.items():
                    found[name][unit] |= _over_time(images[name][places], windows.hr[places])
        return found

    def _both(self, image: Tensor, hr: Tensor, fp: Tensor) -> dict[str, float]:
        to_fp = self._against(image, fp)
        return self._against(image, hr) | {f"{key}_to_fp": value for key, value in to_fp.items()}

    def _against(self, image: Tensor, reference: Tensor) -> dict[str, float]:
        scores = self._meter.measure(picture(image), picture(reference))
        with torch.no_grad():
            scores[self._name] = float(self._lpips(to_unit(image)[None], to_unit(reference)[None]))
        return {name: round(value, DIGITS) for name, value in scores.items()}


def _over_time(made: Tensor, hr: Tensor) -> dict[str, float]:
    """Of a clip's frames, uint8 (T, 3, s, s)."""
    frames, guide = ([np.float32(1 / 255) * np.asarray(picture(image), np.float32) for image in c] for c in (made, hr))
    scores = {"ewarp_tvl1": ewarp_tvl1(frames, guide), "psnr_neighbours": psnr_neighbours(frames)}
    return {name: round(value, DIGITS) for name, value in scores.items()}


@torch.no_grad()
def restored(model: Restorer, lq: Tensor) -> Tensor:
    """uint8 network inputs (n, 3, s, s), or (n, 6, s, s) of a model of clips -> uint8 restored images, one by one."""
    device = model.device
    images = torch.cat([model.restore(to_unit(low)[None].to(device)) for low in lq])
    if not bool(images.isfinite().all()):
        raise DivergedError(
            "gives pictures that are no numbers", "the trained model", "train with a lower learning rate"
        )
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().contiguous()


def picture(image: Tensor) -> Image.Image:
    """uint8 (3, H, W) -> RGB Pillow image."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def means(scores: Scores) -> dict[str, dict[str, float]]:
    """Means over the images of each set; the set ``all`` is the mean over sets."""
    found = {name: _mean(list(images.values())) for name, images in scores.items()}
    return {**found, "all": _mean(list(found.values()))}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {metric: round(sum(row[metric] for row in rows) / len(rows), DIGITS) for metric in rows[0]}


def package_bytes(model: Backbone, row: MethodRow, common: CommonConfig, bits: str, lq: Tensor) -> int:
    """Bytes of the file, everything in it; ``lq`` (N, 3, H, W) in [-1, 1] decides ranks where inputs share them out."""
    return package_size(model, plan(model, row.planned(common), parse_bits(bits), lq), {})


@torch.no_grad()
def layer_errors(teacher: Backbone, student: Backbone, lq: Tensor) -> dict[str, float]:
    """Layer -> ||y_q - y|| / ||y|| (Frobenius) on ``lq`` (B, 3, H, W), y the teacher's output of that layer.

    y_q is the student's for the teacher's input of the layer: errors of other layers do not enter.
    """
    layers, errors = quant_layers(student), dict[str, float]()

    def hook(name: str) -> Any:
        def compare(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            noise = (layers[name](inputs[0]) - output).double().norm()
            errors[name] = round(float(noise / output.double().norm().clamp_min(1e-12)), DIGITS)

        return compare

    found = quantizable(teacher)
    handles = [found[name].register_forward_hook(hook(name)) for name in layers if name in found]
    try:
        teacher(lq)
    finally:
        for handle in handles:
            handle.remove()
    return {name: errors[name] for name in layers if name in errors}
