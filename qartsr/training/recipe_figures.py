"""What each step of the sample backbone's recipe is judged by: figures on held-out photographs, and a picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from qartsr.data import Pair
from qartsr.data.clips import Clips, Motion, Scenes, moving_clips, shifted
from qartsr.data.pairs import to_unit
from qartsr.metrics.luma import psnr_y
from qartsr.models import Backbone
from qartsr.models.sd_unet.schedule import alphas_cumprod
from qartsr.training.determinism import generator

_SIDE, _CLIP = 256, 192
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
    """Per picture: PSNR (dB) on Y and RGB, bicubic's and the model's; bicubic, model and original side by side.

    Of a picture larger than what the model is meant for (``facts.window``) the part at its top left.
    """
    quality, rows = {}, []
    for pair in pairs:
        side = model.facts.window or max(pair.hr.shape)
        lq, hr = (to_unit(image[:, :side, :side])[None] for image in (pair.lq, pair.hr))
        image = ((model(lq).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
        quality[pair.name] = {
            "psnr_bicubic": _luma(lq, hr), "psnr": _luma(image, hr),
            "psnr_rgb_bicubic": _psnr(lq, hr), "psnr_rgb": _psnr(image, hr),
        }  # fmt: skip
        rows.append([lq, image, hr])
    return quality, _grid(rows)


FRAMES = 6


@torch.no_grad()
def compared(
    video: Backbone, image: Backbone, pairs: Sequence[Pair]
) -> tuple[dict[str, dict[str, float]], Image.Image]:
    """The model of clips and that of images, on moving clips of held-out photographs, clean and noisy.

    Per photograph and noise: RGB PSNR (dB) and ``change``, 1000 times the mean squared change between frames that the
    clip's exact flow does not account for, of images in [0, 1]. The picture: the last frame of each clip.
    """
    quality, rows = {}, []
    for number, pair in enumerate(pairs):
        for noise in (0.0, 0.03):
            motion = Motion(FRAMES, 6.0, 1.0, noise)
            clips = moving_clips(Scenes([pair]), 1, _CLIP, motion, generator(0, "compared", number))
            values: dict[str, float] = {}
            row = [clips.lq[0, -1:]]
            for name, model in (("image", image), ("video", video)):
                made = _restored_clip(model, clips.lq[0])
                values |= {f"psnr_{name}": _psnr(made, clips.hr[0]), f"change_{name}": _change(made, clips)}
                row.append(made[-1:])
            quality[f"{pair.name}, {'noise' if noise else 'clean'}"] = values
            rows.append([*row, clips.hr[0, -1:]])
    means = {key: _mean([each[key] for each in quality.values()]) for key in next(iter(quality.values()))}
    return {**quality, "mean": means}, _grid(rows)


def _restored_clip(model: Backbone, lq: Tensor) -> Tensor:
    """(T, 3, H, W) -> the same, in 8 bits; a model of clips sees the frame before, the first one itself."""
    made = []
    for number, frame in enumerate(lq):
        before = lq[max(number - 1, 0)]
        given = torch.cat([before, frame]) if model.facts.frames > 1 else frame
        made.append(((model(given[None]).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1)
    return torch.cat(made)


def _change(made: Tensor, clips: Clips) -> float:
    found = []
    for number, (rows, columns) in enumerate(clips.steps[0].tolist()):
        before, now = shifted(made[number], made[number + 1], (rows, columns))
        found.append(float(((now - before) / 2).square().mean()))
    return 1000 * sum(found) / len(found)


def _psnr(image: Tensor, target: Tensor) -> float:
    """RGB, of images in [-1, 1]."""
    return round(float(-10 * torch.log10(((image - target) / 2).square().mean())), 4)


def _luma(image: Tensor, target: Tensor) -> float:
    return round(psnr_y((image[0] + 1) / 2, (target[0] + 1) / 2), 4)


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 6)


def _centre(image: Tensor) -> Tensor:
    top, left = (max(0, side - _SIDE) // 2 for side in image.shape[-2:])
    return image[..., top : top + _SIDE, left : left + _SIDE]


def _grid(rows: Sequence[Sequence[Tensor]]) -> Image.Image:
    """The centres of images (1, 3, H, W) in [-1, 1], one row of them per photograph."""
    lines = [torch.cat([_centre(image)[0] for image in row], 2) for row in rows]
    pixels = ((torch.cat(lines, 1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
