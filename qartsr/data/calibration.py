"""Calibration pairs: LR/HR crops of the train split (paper: 512 pairs of 128x128), with the origin of each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from qartsr.config.data import BicubicConfig, CalibrateConfig, DegradationConfig
from qartsr.data.degrade import bicubic, degrade
from qartsr.data.pairs import SCALE, image_tensor, load_pairs, texture, upsample
from qartsr.errors import QartsrError
from qartsr.files import write_json

_CANDIDATES = 3


class Calibration(NamedTuple):
    """N pairs as uint8: ``hr`` and ``lq`` (N, 3, 4s, 4s), ``lr`` (N, 3, s, s); ``lq`` is ``lr`` upsampled x4."""

    hr: Tensor
    lr: Tensor
    lq: Tensor


def write_calibration(
    data: Path, config: CalibrateConfig, degradation: DegradationConfig, seed: int, out: Path
) -> None:
    """pairs.safetensors, manifest.json (source, crop box and seed per pair) and contact.png.

    Of three random positions the one with the most texture is taken. With bicubic, LR is cut from the whole image's.
    Raises QartsrError when no training image is large enough.
    """
    side = SCALE * config.lr_size
    sources = [pair for pair in load_pairs(data, "train") if min(pair.hr.shape[1:]) >= side]
    if not sources:
        raise QartsrError(f"no training image is {side} pixels wide and high", str(data), "lower calibrate.lr_size")
    lows = {pair.name: bicubic(pair.hr) for pair in sources} if isinstance(degradation, BicubicConfig) else {}
    columns: dict[str, list[Tensor]] = {"hr": [], "lr": [], "lq": []}
    rows: list[dict[str, Any]] = []
    for number in range(config.pairs):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        pair = sources[int(torch.randint(len(sources), (1,), generator=generator))]
        top, left = _place(pair.hr, side, generator)
        hr = pair.hr[:, top : top + side, left : left + side]
        low = (slice(None), *(slice(at // SCALE, at // SCALE + config.lr_size) for at in (top, left)))
        lr = lows[pair.name][low] if lows else degrade(hr, degradation, generator)
        lq = image_tensor(upsample(Image.fromarray(lr.permute(1, 2, 0).contiguous().numpy())))
        for name, tensor in (("hr", hr), ("lr", lr), ("lq", lq)):
            columns[name].append(tensor)
        rows.append({"image": pair.name, "box": [left, top, left + side, top + side], "seed": seed})
    _write({name: torch.stack(parts).contiguous() for name, parts in columns.items()}, rows, out)


def _place(image: Tensor, side: int, generator: torch.Generator) -> tuple[int, int]:
    room = [(length - side) // SCALE + 1 for length in image.shape[1:]]
    places = [
        (SCALE * int(torch.randint(room[0], (1,), generator=generator)),
         SCALE * int(torch.randint(room[1], (1,), generator=generator)))
        for _ in range(_CANDIDATES)
    ]  # fmt: skip
    return max(places, key=lambda at: texture(image[:, at[0] : at[0] + side, at[1] : at[1] + side]))


def _write(tensors: dict[str, Tensor], rows: list[dict[str, Any]], out: Path) -> None:
    temporary = out.with_name(out.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(tensors, temporary / "pairs.safetensors")
    write_json(temporary / "manifest.json", {"pairs": rows})
    _contact_sheet(tensors["lq"], tensors["hr"]).save(temporary / "contact.png", format="PNG")
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)


def _contact_sheet(lq: Tensor, hr: Tensor, columns: int = 8, most: int = 64) -> Image.Image:
    """Upsampled LR and HR side by side, eight pairs in a row."""
    pairs = torch.cat([lq, hr], dim=3)[:most]
    count, _, height, width = pairs.shape
    sheet = torch.full((3, -(-count // columns) * (height + 4), columns * (width + 4)), 255, dtype=torch.uint8)
    for number, picture in enumerate(pairs):
        top, left = number // columns * (height + 4), number % columns * (width + 4)
        sheet[:, top : top + height, left : left + width] = picture
    return Image.fromarray(sheet.permute(1, 2, 0).contiguous().numpy())


def load_calibration(folder: Path) -> Calibration:
    """Read the pairs. Raises QartsrError naming what is missing or does not fit."""
    path = folder / "pairs.safetensors"
    try:
        tensors = load_file(path)
        found = Calibration(tensors["hr"], tensors["lr"], tensors["lq"])
    except (OSError, SafetensorError, KeyError) as error:
        raise QartsrError(f"is not a calibration set ({error})", str(path), "run the calibrate stage again") from error
    if found.hr.shape != found.lq.shape or found.hr.shape[2] != SCALE * found.lr.shape[2]:
        raise QartsrError("has HR and LR of sizes that do not fit", str(path), "run the calibrate stage again")
    return found
