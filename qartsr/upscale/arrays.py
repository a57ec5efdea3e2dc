"""Pictures as the arrays and tensors that diffusers hands out: one batch, values from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qartsr.errors import QartsrError
from qartsr.images import Picture

Floats = np.ndarray[Any, np.dtype[np.float32]]


def as_array(pictures: Sequence[Picture]) -> Floats:
    """float32 (B, H, W, C), C as in the mode: L 1, LA 2, RGB 3, RGBA 4; 16 bits are used where there are any.

    Raises QartsrError for pictures of several sizes or modes, which make no array, and for none.
    """
    kinds = {(picture.size, picture.mode) for picture in pictures}
    if len(kinds) != 1:
        what = "pictures of several sizes or modes make no array" if kinds else "no picture makes no array"
        raise QartsrError(what, "output_type", "ask for 'pil', or for one after the other")
    return np.stack([_floats(picture) for picture in pictures])


def _floats(picture: Picture) -> Floats:
    wide = picture.still_wide()
    values = np.asarray(picture) / np.float32(255) if wide is None else wide / np.float32(65535)
    return (values[..., None] if values.ndim == 2 else values).astype(np.float32)
