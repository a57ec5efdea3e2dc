"""What the methods are trained and tested on: calibration pairs per seed, and test windows per set.

Beside photographs there are drawn pictures: windows of a facade, slanting roofs, letters, with repeating edges, as
Urban100 is full of them. They come from arithmetic and Pillow's own font alone, four times too large and shrunk by
Lanczos, so edges are smooth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from qartsr.config.data import CalibrateConfig, ClipsConfig, DegradationConfig
from qartsr.config.experiment import TestSetConfig
from qartsr.data import degrade, load_calibration, load_pairs, write_calibration
from qartsr.data.pairs import image_tensor, texture, to_unit
from qartsr.errors import QartsrError
from qartsr.files import write_bytes
from qartsr.images import SCALE, upsample

_FINE = 4
_INK, _PAPER, _GLASS, _TILE = (52, 48, 58), (226, 218, 200), (108, 138, 162), (168, 84, 62)


def structures(side: int) -> dict[str, Tensor]:
    """Name -> uint8 (3, side, side)."""
    return {name: _drawn(draw, side) for name, draw in _PICTURES.items()}


def _drawn(draw: Callable[[ImageDraw.ImageDraw, int], None], side: int) -> Tensor:
    size = side * _FINE
    picture = Image.new("RGB", (size, size), _PAPER)
    draw(ImageDraw.Draw(picture), size)
    return image_tensor(picture.resize((side, side), Image.Resampling.LANCZOS))


def _facade(pen: ImageDraw.ImageDraw, size: int) -> None:
    """Windows that become smaller to the right, as a wall seen at an angle."""
    left, width = size * 0.04, size * 0.13
    while left < size and width > 4:
        for row in range(7):
            top = size * (0.03 + row * 0.142)
            pen.rectangle((left, top, left + width * 0.62, top + size * 0.09), _GLASS, _INK, _FINE)
            middle = left + width * 0.31
            pen.line((middle, top, middle, top + size * 0.09), _INK, _FINE)
        left, width = left + width, width * 0.9


def _roofs(pen: ImageDraw.ImageDraw, size: int) -> None:
    """Stripes under three angles, ever closer."""
    for number, slope in enumerate((0.35, -0.6, 1.4)):
        base = size * number // 3
        gap = size // (12 + 8 * number)
        for start in range(-2 * size, 2 * size, gap):
            points = [(x, base + (start + slope * x) % (size // 3)) for x in range(0, size, _FINE)]
            for (x0, y0), (x1, y1) in pairwise(points):
                if abs(y1 - y0) < gap:
                    pen.line((x0, y0, x1, y1), _TILE if start // gap % 2 else _INK, _FINE)


def _letters(pen: ImageDraw.ImageDraw, size: int) -> None:
    """Words from large to small."""
    top = size * 0.02
    for height in (0.2, 0.15, 0.12, 0.1, 0.085, 0.07, 0.06):
        pen.text((size * 0.03, top), "RgK 358 mExW aBq", _INK, ImageFont.load_default(size * height))
        top += size * height * 1.15


_PICTURES = {"facade": _facade, "roofs": _roofs, "letters": _letters}

_GRID = 32
_STRIDE = 16


class Windows(NamedTuple):
    """A test set: ``names`` of its images, ``hr`` and ``lq`` (LR upsampled x4), both uint8 (n, 3, s, s)."""

    names: tuple[str, ...]
    hr: Tensor
    lq: Tensor
    length: int = 1
    """images in a row that are one clip, each with the frame before in its first channels: ``lq`` (n, 6, s, s)"""

    @property
    def units(self) -> dict[str, slice]:
        """What is measured as one, image or clip: its name -> its places."""
        starts = range(0, len(self.names), self.length)
        return {self._unit(self.names[start]): slice(start, start + self.length) for start in starts}

    def _unit(self, name: str) -> str:
        return name if self.length == 1 else name.rpartition("-")[0]


def write_windows(data: Path, sets: Mapping[str, TestSetConfig], side: int, out: Path) -> None:
    """``out/sets/NAME.safetensors`` for every set: the most detailed window of each image or clip. Deterministic."""
    for name, config in sets.items():
        pairs: dict[str, tuple[Tensor, Tensor]]
        if config.clips:
            pairs = _clips(config.clips, config.degradation, side)
        else:
            pictures = structures(side) if config.images == "structures" else _photographs(data, side)
            pairs = {picture: (hr, _lq(hr, config.degradation)) for picture, hr in pictures.items()}
        tensors = {f"{picture}/{key}": value for picture, pair in pairs.items() for key, value in zip("hl", pair)}  # noqa: B905
        write_bytes(out / "sets" / f"{name}.safetensors", save(tensors))


def load_windows(folder: Path, names: Mapping[str, TestSetConfig]) -> dict[str, Windows]:
    """Read the sets. Raises QartsrError naming what is missing."""
    found = {}
    for name in names:
        path = folder / "sets" / f"{name}.safetensors"
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise QartsrError(f"cannot be read ({error})", str(path), "run stage samples again") from error
        pictures = sorted({key.partition("/")[0] for key in tensors})
        hr, lq = (torch.stack([tensors[f"{picture}/{key}"] for picture in pictures]) for key in "hl")
        found[name] = Windows(tuple(pictures), hr, lq, names[name].length)
    return found


def write_pairs(data: Path, config: CalibrateConfig, degradation: DegradationConfig, seed: int, out: Path) -> None:
    """The calibration pairs of one seed, in ``out/calibration/SEED``."""
    write_calibration(data, config, degradation, seed, out / "calibration" / str(seed))


def load_inputs(folder: Path, seed: int, length: int = 1) -> tuple[Tensor, Tensor]:
    """Network inputs of a seed's pairs in [-1, 1], (N, 3, H, W): three quarters to train on, one to choose by.

    ``length``: pairs in a row that are one clip and stay together.
    """
    lq = to_unit(load_calibration(folder / "calibration" / str(seed)).lq)
    clips = len(lq) // length
    kept = length * (clips - max(1, clips // 4))
    return lq[:kept], lq[kept:]


def _photographs(data: Path, side: int) -> dict[str, Tensor]:
    return {pair.name: _window(pair.hr, side) for pair in load_pairs(data, "test")}


def _clips(config: ClipsConfig, degradation: DegradationConfig, side: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Frame -> HR and network input, the frame before in its first channels; the window is the first frame's best."""
    from qartsr.clips.source import frames, survey  # PyAV: there only with its extra

    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for file in map(Path, config.files):
        found = [image_tensor(Image.fromarray(frame)) for frame in islice(frames(survey(file)), config.frames)]
        if len(found) < config.frames:
            what = f"has {len(found)} frames, fewer than {config.frames}"
            raise QartsrError(what, str(file), "lower `frames` of the set")
        top, left = _place(found[0], side)
        cut = [image[:, top : top + side, left : left + side].contiguous() for image in found]
        lows = [_lq(hr, degradation) for hr in cut]  # _lq's dice are the same for every frame: a clip's are one
        both = (torch.cat(pair) for pair in pairwise([lows[0], *lows]))
        pairs |= {f"{file.stem}-{number:05d}": pair for number, pair in enumerate(zip(cut, both, strict=True))}
    return pairs


def _window(image: Tensor, side: int) -> Tensor:
    top, left = _place(image, side)
    return image[:, top : top + side, left : left + side].contiguous()


def _place(image: Tensor, side: int) -> tuple[int, int]:
    """Top and left of the square with the steepest mean gradient, on a coarse grid."""
    height, width = image.shape[1:]
    if min(height, width) < side:
        what = f"a test image is {width} x {height}, smaller than a window of {side}"
        raise QartsrError(what, "crop", "lower it or take the image out of the test split")
    places = [(t, left) for t in range(0, height - side + 1, _GRID) for left in range(0, width - side + 1, _STRIDE)]
    return max(places, key=lambda at: texture(image[:, at[0] : at[0] + side, at[1] : at[1] + side]))


def _lq(hr: Tensor, degradation: DegradationConfig) -> Tensor:
    low = degrade(hr, degradation, torch.Generator().manual_seed(0))
    assert low.shape[1] * SCALE == hr.shape[1]
    return image_tensor(upsample(Image.fromarray(low.permute(1, 2, 0).numpy())))
