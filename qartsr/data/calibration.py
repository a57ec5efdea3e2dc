"""Calibration pairs: LR/HR crops of the train split (paper: 512 pairs of 128x128), with the origin of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from qartsr.config.data import BicubicConfig, CalibrateConfig, DegradationConfig
from qartsr.data.clips import Motion, Scenes, moving_clips
from qartsr.data.degradation import bicubic, degrade
from qartsr.data.pairs import Pair, image_tensor, load_pairs, texture
from qartsr.errors import QartsrError
from qartsr.files import replacing_folder, write_bytes, write_json
from qartsr.images import SCALE, upsample

_CANDIDATES = 3
_SEEDS = 2**63
"""As many as torch's generators take."""


class Calibration(NamedTuple):
    """N pairs as uint8: ``hr`` and ``lq`` (N, 3, 4s, 4s), ``lr`` (N, 3, s, s); ``lq`` is ``lr`` upsampled x4.

    For a model of clips ``lr`` and ``lq`` have 6 channels, the frame before first; ``hr`` is the last one's.
    """

    hr: Tensor
    lr: Tensor
    lq: Tensor


def write_calibration(
    data: Path, config: CalibrateConfig, degradation: DegradationConfig, seed: int, out: Path
) -> None:
    """pairs.safetensors, manifest.json (image, crop box of HR and seed of every pair) and contact.png.

    Images are drawn equally often. Of three random positions the one with the steepest mean gradient is taken, so
    flat sky, on which any quantizer looks good, is rare. With bicubic, LR is cut from the whole image's LR (no border
    effects); Real-ESRGAN degrades the HR crop, as its training does. Raises QartsrError naming an image that is
    smaller than a crop.
    """
    side = SCALE * config.lr_size
    sources = load_pairs(data, "train")
    for pair in sources:
        _refuse_small(pair, side, data)
    if config.frames > 1:
        _write(*_moving(sources, config, side, seed), out)
        return
    lows = {pair.name: bicubic(pair.hr) for pair in sources} if isinstance(degradation, BicubicConfig) else {}
    pairs: list[Calibration] = []
    rows: list[dict[str, Any]] = []
    for number in range(config.pairs):
        pair_seed = (seed * 1_000_003 + number) % _SEEDS
        generator = torch.Generator().manual_seed(pair_seed)
        pair = sources[int(torch.randint(len(sources), (1,), generator=generator))]
        top, left = _place(pair.hr, side, generator)
        hr = _cut(pair.hr, top, left, side)
        if lows:
            lr = _cut(lows[pair.name], top // SCALE, left // SCALE, config.lr_size)
        else:
            lr = degrade(hr, degradation, generator)
        pairs.append(Calibration(hr, lr, image_tensor(upsample(_picture(lr)))))
        rows.append({"image": pair.name, "box": [left, top, left + side, top + side], "seed": pair_seed})
    _write(Calibration(*(torch.stack(parts) for parts in zip(*pairs, strict=True))), rows, out)


def _moving(
    sources: list[Pair], config: CalibrateConfig, side: int, seed: int
) -> tuple[Calibration, list[dict[str, Any]]]:
    """Clips of ``length`` pairs in a row, of windows that move over the images (:mod:`qartsr.data.clips`)."""
    scenes, motion = Scenes(sources), Motion(config.length + 1, config.motion, 0.5, 0.03)
    parts: list[Calibration] = []
    rows: list[dict[str, Any]] = []
    for number in range(config.pairs // config.length):
        clip_seed = (seed * 1_000_003 + number) % _SEEDS
        clip = moving_clips(scenes, 1, side, motion, torch.Generator().manual_seed(clip_seed))
        hr = ((clip.hr[0, 1:] + 1) * 127.5).round().to(torch.uint8)
        lq = torch.stack([image_tensor(upsample(_picture(frame))) for frame in clip.lr[0]])
        both = [torch.cat([frames[:-1], frames[1:]], 1) for frames in (clip.lr[0], lq)]
        parts.append(Calibration(hr, *both))
        rows += [{"clip": number, "frame": frame, "seed": clip_seed} for frame in range(config.length)]
    return Calibration(*(torch.cat(each) for each in zip(*parts, strict=True))), rows


def _refuse_small(pair: Pair, side: int, data: Path) -> None:
    height, width = pair.hr.shape[1:]
    if min(height, width) < side:
        what = f"{pair.name} is {width} x {height}, smaller than a crop of {side} x {side} (4 times calibrate.lr_size)"
        raise QartsrError(what, str(data), "lower calibrate.lr_size or take the image out of the train split")


def _place(image: Tensor, side: int, generator: torch.Generator) -> tuple[int, int]:
    """Top and left, multiples of 4."""
    rooms = [(length - side) // SCALE + 1 for length in image.shape[1:]]
    places = [[SCALE * int(torch.randint(r, (1,), generator=generator)) for r in rooms] for _ in range(_CANDIDATES)]
    top, left = max(places, key=lambda at: texture(_cut(image, at[0], at[1], side)))
    return top, left


def _cut(image: Tensor, top: int, left: int, side: int) -> Tensor:
    return image[:, top : top + side, left : left + side].contiguous()


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def _write(pairs: Calibration, rows: list[dict[str, Any]], out: Path) -> None:
    with replacing_folder(out) as folder:
        write_bytes(folder / "pairs.safetensors", save(pairs._asdict()))
        write_json(folder / "manifest.json", {"pairs": rows})
        _contact_sheet(pairs).save(folder / "contact.png", format="PNG")


def _contact_sheet(pairs: Calibration, columns: int = 8, most: int = 64) -> Image.Image:
    """Upsampled LR (left) and HR (right) side by side, eight pairs in a row."""
    both = torch.cat([pairs.lq[:, -3:], pairs.hr], dim=3)[:most]
    count, _, height, width = both.shape
    sheet = torch.full((3, -(-count // columns) * (height + 4), columns * (width + 4)), 255, dtype=torch.uint8)
    for number, picture in enumerate(both):
        top, left = number // columns * (height + 4), number % columns * (width + 4)
        sheet[:, top : top + height, left : left + width] = picture
    return _picture(sheet)


def load_calibration(folder: Path) -> Calibration:
    """Read the pairs. Raises QartsrError naming what is missing or does not fit."""
    path, again = folder / "pairs.safetensors", "run the calibrate stage again"
    try:
        tensors = load_file(path)
        found = Calibration(*(tensors[name] for name in Calibration._fields))
    except (OSError, SafetensorError, KeyError) as error:
        raise QartsrError(f"is not a calibration set ({error})", str(path), again) from error
    if any(tensor.dtype != torch.uint8 for tensor in found):
        raise QartsrError("has pixels that are not 8-bit", str(path), again)
    pairs, side = found.lr.shape[0], found.lr.shape[-1]
    seen = found.lr.shape[1] if found.lr.ndim == 4 and found.lr.shape[1] in (3, 6) else 3
    if found.lr.shape != (pairs, seen, side, side) or not pairs:
        raise QartsrError(f"has LR of shape {tuple(found.lr.shape)}, not (pairs, 3, s, s)", str(path), again)
    large = (SCALE * side, SCALE * side)
    if found.hr.shape != (pairs, 3, *large) or found.lq.shape != (pairs, seen, *large):
        raise QartsrError(f"has HR, LR and upsampled LR whose shapes do not fit {SCALE} to 1", str(path), again)
    return found
