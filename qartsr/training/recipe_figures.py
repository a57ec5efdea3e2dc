"""What each step of the sample backbone's recipe is judged by: figures on held-out photographs, and a picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from qartsr.data import Pair
from qartsr.data.pairs import to_unit
from qartsr.metrics.luma import psnr_y
from qartsr.models import Backbone
from qartsr.models.sd_unet.schedule import alphas_cumprod
from qartsr.training.determinism import generator

_SIDE = 256
TIMESTEPS = (1, 250, 500, 750, 999)


@torch.no_grad()
def reconstructions(model: Backbone, pairs: Sequence[Pair]) -> tuple[dict[str, float], Image.Image]:
    """Mean RGB PSNR (dB) of the autoencoder on sharp pictures and on bicubically enlarged ones; both, and the first."""
    sharp, enlarged, rows = [], [], []
    for pair in pairs:
        given = [to_unit(image)[None] for image in (pair.hr, pair.lq)]
        back = [model.decode(model.encode(image)).clamp(-1, 1) for image in given]
        sharp.append(_psnr(back[0], given[0]))
        enlarged.append(_psnr(back[1], given[1]))
        rows.append([given[0], back[0], given[1], back[1]])
    return {"psnr_sharp": _mean(sharp), "psnr_enlarged": _mean(enlarged)}, _grid(rows)


@torch.no_grad()
def denoised(model: Backbone, pairs: Sequence[Pair]) -> tuple[dict[str, float], Image.Image]:
    """Mean squared error of the predicted noise by timestep; the clean picture that each prediction stands for."""
    levels, errors, rows = alphas_cumprod(), {}, [[to_unit(_centre(pair.hr))[None]] for pair in pairs]
    for index in TIMESTEPS:
        model.timestep, found = index, []
        for number, row in enumerate(rows):
            z = model.encode(row[0])
            noise = torch.randn(z.shape, generator=generator(0, "denoised", number, index))
            noised = levels[index].sqrt() * z + (1 - levels[index]).sqrt() * noise
            predicted = model.predict(noised)
            found.append(float((predicted - noise).square().mean()))
            row.append(model.decode(model.step(noised, predicted)).clamp(-1, 1))
        errors[f"mse_t{index}"] = _mean(found)
    return errors, _grid(rows)


@torch.no_grad()
def restored(model: Backbone, pairs: Sequence[Pair]) -> tuple[dict[str, dict[str, float]], Image.Image]:
    """Per picture: PSNR (dB) on Y and RGB, bicubic's and the model's; bicubic, model and original side by side."""
    quality, rows = {}, []
    for pair in pairs:
        lq, hr = to_unit(pair.lq)[None], to_unit(pair.hr)[None]
        image = ((model(lq).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
        quality[pair.name] = {
            "psnr_bicubic": _luma(lq, hr), "psnr": _luma(image, hr),
            "psnr_rgb_bicubic": _psnr(lq, hr), "psnr_rgb": _psnr(image, hr),
        }  # fmt: skip
        rows.append([lq, image, hr])
    return quality, _grid(rows)


def _psnr(image: Tensor, target: Tensor) -> float:
    """RGB, of images in [-1, 1]."""
    return round(float(-10 * torch.log10(((image - target) / 2).square().mean())), 4)


def _luma(image: Tensor, target: Tensor) -> float:
    return round(psnr_y((image[0] + 1) / 2, (target[0] + 1) / 2), 4)


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 6)


def _centre(image: Tensor) -> Tensor:
    top, left = ((side - _SIDE) // 2 for side in image.shape[-2:])
    return image[..., top : top + _SIDE, left : left + _SIDE]


def _grid(rows: Sequence[Sequence[Tensor]]) -> Image.Image:
    """The centres of images (1, 3, H, W) in [-1, 1], one row of them per photograph."""
    lines = [torch.cat([_centre(image)[0] for image in row], 2) for row in rows]
    pixels = ((torch.cat(lines, 1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
