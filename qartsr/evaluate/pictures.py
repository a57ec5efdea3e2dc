"""Contact sheets on white, for people and trackers; error maps on one scale for every image and bit-width."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

RANGE = 48
"""Levels of 255 at the bright end of the scale; larger errors look the same."""


def error_map(image: Image.Image, reference: Image.Image) -> Image.Image:
    """|Y - Y_reference| in 0 .. RANGE levels -> matplotlib's magma, a perceptually uniform scale from black to yellow.

    The scale is fixed, so maps of different models can be compared by eye. Y is Pillow's BT.601 luma, full swing.
    """
    luma, truth = (np.asarray(picture.convert("L"), dtype=np.int16) for picture in (image, reference))
    error = np.minimum(np.abs(luma - truth), RANGE) * 255 // RANGE
    return Image.fromarray(_colours()[error])


@functools.cache
def _colours() -> Any:
    from matplotlib import colormaps  # half a second, for those who draw

    return (colormaps["magma"](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


GRID = 8
"""Most rows of a sheet."""
_CELL, _GAP, _TITLE, _INK = 256, 8, 30, (38, 42, 51)


def fitted(image: Image.Image, side: int = _CELL) -> Image.Image:
    """The centre square of an image in ``side`` pixels: Lanczos to shrink, nearest to enlarge (pixels stay visible)."""
    size = min(image.size)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    method = Image.Resampling.LANCZOS if size > side else Image.Resampling.NEAREST
    return image.crop((left, top, left + size, top + size)).resize((side, side), method)


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]], titles: Sequence[str], captions: Sequence[Sequence[str]] = ()
) -> Image.Image:
    """Square pictures of one size in a grid; ``captions``, if any, stand below the pictures, one per picture."""
    side = rows[0][0].width
    below = _TITLE if captions else 0
    size = (_GAP + len(titles) * (side + _GAP), _TITLE + _GAP + len(rows) * (side + below + _GAP))
    sheet = Image.new("RGB", size, "white")
    pen, big, small = ImageDraw.Draw(sheet), ImageFont.load_default(18), ImageFont.load_default(15)
    for column, title in enumerate(titles):
        middle = _GAP + column * (side + _GAP) + side / 2
        pen.text((middle, _TITLE / 2 + _GAP / 2), title, _INK, big, "mm")
        for row, pictures in enumerate(rows):
            top = _TITLE + _GAP + row * (side + below + _GAP)
            sheet.paste(pictures[column], (round(middle - side / 2), top))
            if captions:
                pen.text((middle, top + side + below / 2 - 1), captions[row][column], _INK, small, "mm")
    return sheet
