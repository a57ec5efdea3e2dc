"""Error maps: how far the luma is from the truth, on one scale for every image and bit-width."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from PIL import Image

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
