"""Clips of the test set over time: a picture of one line of every frame, quality per frame, and the clip in motion."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from qartsr.evaluate.report.crops import textured
from qartsr.evaluate.report.inputs import Contents
from qartsr.evaluate.report.theme import INK, MUTED, Draw, colour, legend
from qartsr.images import read_image

_TALL = 120
"""Least height of a slice, in pixels."""
_SIDE, _MILLISECONDS = 192, 120
"""Of the clip in motion: the window in HR pixels, and how long a frame stands."""


class ClipShown(NamedTuple):
    """One clip."""

    name: str
    frames: int
    slices: tuple[tuple[str, Image.Image], ...]
    """title and x-t slice of bicubic, FP, each bit-width and the truth"""
    motion: str
    """all of them side by side, an animated WebP in a ``data:`` address"""
    quality: Draw


def clips_shown(contents: Contents) -> list[ClipShown]:
    """The clips in manifest order; none of a test set of photographs."""
    names = dict.fromkeys(scene.clip for scene in contents.scenes.items if scene.clip)
    return [_shown(contents, name) for name in names]


def _shown(contents: Contents, clip: str) -> ClipShown:
    scenes = [scene for scene in contents.scenes.items if scene.clip == clip]
    frames: dict[str, list[Image.Image]] = {
        subject.title: [read_image(subject.folder / "images" / f"{scene.name}.png") for scene in scenes]
        for subject in contents.subjects
    }
    frames["HR"] = [scene.hr() for scene in scenes]
    slices = tuple((title, time_slice(images)) for title, images in frames.items())
    return ClipShown(clip, len(scenes), slices, _motion(list(frames.values())), _quality(contents, clip))


def time_slice(frames: Sequence[Image.Image]) -> Image.Image:
    """The middle line of every frame, the first on top: still things are upright lines, flicker is a comb.

    Each line is repeated so that the picture can be seen.
    """
    lines = [np.asarray(frame.convert("RGB"))[frame.height // 2] for frame in frames]
    return Image.fromarray(np.stack(lines).repeat(-(-_TALL // len(lines)), axis=0))


def _motion(rows: Sequence[Sequence[Image.Image]]) -> str:
    """The most detailed window of the truth's first frame, the columns as in the slices."""
    box = textured(rows[-1][0], _SIDE)
    width, height = box[2] - box[0], box[3] - box[1]
    sheets = []
    for images in zip(*rows, strict=True):
        sheet = Image.new("RGB", (width * len(images), height))
        for place, image in enumerate(images):
            sheet.paste(image.convert("RGB").crop(box), (place * width, 0))
        sheets.append(sheet)
    buffer = io.BytesIO()
    settings = {"save_all": True, "append_images": sheets[1:], "duration": _MILLISECONDS, "loop": 0}
    sheets[0].save(buffer, "WEBP", quality=90, method=4, **settings)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _quality(contents: Contents, clip: str) -> Draw:
    """PSNR of every frame."""
    names = [scene.name for scene in contents.scenes.items if scene.clip == clip]
    shades = [MUTED, INK, *(colour(index) for index in range(len(contents.quantized)))]

    def draw(axes: Axes) -> None:
        for subject, shade in zip(contents.subjects, shades, strict=True):
            values = [subject.per_image.get(name, {}).get("psnr", math.nan) for name in names]
            axes.plot(values, color=shade, label=subject.title)
        axes.set_title(clip)
        axes.set(xlabel="frame", ylabel="PSNR on luma, dB")
        legend(axes)

    return draw
