"""The network's source: a picture four times as wide and high, of what is visible in it and wide enough to judge.

Colour under alpha 0 is no colour: neither the network nor the colour fix, which looks 31 pixels far, may read it. So
it is replaced by that of the visible pixels around it, that of hardly visible ones in part, and where alpha varies,
colours are enlarged as they are composed, multiplied by alpha (Porter and Duff, 1984).

A picture a pixel wide is unlike anything the network has learnt from. It is continued by mirroring, and what came of
that is cut off.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from qartsr.images import SCALE, Picture, Wide, narrowed, opaque, upsample
from qartsr.images.metadata import kept

NARROW, MARGIN = 8, 8
"""Sides of fewer LR pixels are continued by so many at both ends."""
_FAINT = 32 / 255
"""Alpha below which a colour is too coarse to be divided by it."""
_SEEN = 8 / 255
"""Alpha below which a colour counts for less than itself: composed, a change of it is two levels at most."""
_Floats = np.ndarray[Any, np.dtype[np.float32]]


class Source(NamedTuple):
    """What the network is given."""

    lq: np.ndarray[Any, Any]
    """(3, H, W), uint8, or float from 0 to 255 of a picture with 16 bits; in memory the channels stay together"""
    rows: slice
    """which of them are the picture"""
    columns: slice


def enlarged(picture: Picture) -> Source:
    """``picture``, x4 by Pillow's bicubic, continued where it is narrow."""
    height, width = (MARGIN if side < NARROW else 0 for side in (picture.height, picture.width))
    wider = _mirrored(picture, height, width) if height or width else picture
    rows, columns = (
        slice(SCALE * margin, SCALE * (margin + side))
        for margin, side in ((height, picture.height), (width, picture.width))
    )
    return Source(_colours(wider).transpose(2, 0, 1), rows, columns)


def _mirrored(picture: Picture, height: int, width: int) -> Picture:
    margins = [(height, height), (width, width), (0, 0)]
    pixels = np.asarray(picture)
    padded = np.pad(pixels, margins[: pixels.ndim], mode="symmetric")
    wide = None if picture.wide is None else np.pad(picture.wide, margins, mode="symmetric")
    return Picture.of(Image.fromarray(padded), {}, wide)


def _colours(picture: Picture) -> np.ndarray[Any, Any]:
    """(4 H, 4 W, 3)."""
    if not opaque(picture):
        return _composed(*_floats(picture), picture.wide is not None)
    if picture.wide is None:
        return np.array(upsample(picture.convert("RGB")))
    return _bicubic(_floats(picture)[0])


def _floats(picture: Picture) -> tuple[_Floats, _Floats]:
    """Colours (H, W, 3) from 0 to 255 and alpha (H, W) from 0 to 1."""
    if picture.wide is None:
        pixels, peak = np.asarray(picture), 255.0
    else:
        pixels, peak = picture.wide, 65535.0
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    transparent = pixels.shape[2] in (2, 4)
    alpha = pixels[..., -1] / np.float32(peak) if transparent else np.ones(pixels.shape[:2], np.float32)
    colours = pixels[..., : pixels.shape[2] - transparent] * np.float32(255 / peak)
    return np.broadcast_to(colours, (*pixels.shape[:2], 3)), alpha.astype(np.float32)


def _composed(colours: _Floats, alpha: _Floats, wide: bool) -> np.ndarray[Any, Any]:
    """Enlarged without what is invisible; straight where nothing but noise is left to divide."""
    filled = fill(colours, alpha)
    straight = _bicubic(filled)
    weight = _bicubic(alpha[..., None], 0, 2)  # where bicubic overshoots, it does in both
    divided = _bicubic(filled * alpha[..., None], -1e4, 1e4) / np.maximum(weight, _FAINT / 2)
    trust = np.clip(weight / _FAINT - 0.5, 0, 1)
    result = np.clip(trust * divided + (1 - trust) * straight, 0, 255)
    return result if wide else np.rint(result).astype(np.uint8)


def _bicubic(planes: _Floats, least: float = 0, most: float = 255) -> _Floats:
    """(H, W, C) -> (4 H, 4 W, C), clipped."""
    size = planes.shape[1] * SCALE, planes.shape[0] * SCALE
    channels = [Image.fromarray(np.ascontiguousarray(plane)) for plane in planes.transpose(2, 0, 1)]
    larger = [np.asarray(plane.resize(size, Image.Resampling.BICUBIC)) for plane in channels]
    return np.clip(np.stack(larger, axis=2), least, most)


def fill(colours: _Floats, alpha: _Floats) -> _Floats:
    """``colours`` (H, W, 3), where alpha (H, W) is 0 those of the visible pixels around; black if there are none.

    Towards alpha 0 one goes over into the other, from _SEEN, or from the most alpha of a picture with less.
    A pyramid: means of the visible over ever larger squares, handed back down (Gortler et al., The Lumigraph, 1996).
    """
    seen = min(_SEEN, float(alpha.max()))
    if seen and (alpha >= seen).all():
        return colours
    weight = alpha[..., None]
    if max(alpha.shape) == 1:
        return colours * (weight > 0)
    coarse, mass = _halved(colours * weight), _halved(weight)
    lower = fill(np.divide(coarse, mass, out=np.zeros_like(coarse), where=mass > 0), mass[..., 0])
    size = alpha.shape[1], alpha.shape[0]
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in lower.transpose(2, 0, 1)]
    below = np.stack([np.asarray(plane.resize(size, Image.Resampling.BILINEAR)) for plane in planes], axis=2)
    own = np.clip(weight / np.float32(seen or 1), 0, 1)
    return np.where(own < 1, below + own * (colours - below), colours).astype(np.float32)


def _halved(planes: _Floats) -> _Floats:
    """Means over squares of 2 x 2; an odd last row or column stands for two."""
    height, width = planes.shape[:2]
    even = np.pad(planes, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return even.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, -1).mean((1, 3), dtype=np.float32)


def visible(picture: Picture) -> Image.Image:
    """8-bit RGB of the same size; invisible colours are those of the visible pixels around them."""
    if opaque(picture):
        return picture.convert("RGB")
    colours, alpha = _floats(picture)
    return Image.fromarray(np.rint(fill(colours, alpha)).astype(np.uint8))


def like(result: np.ndarray[Any, Any], source: Picture) -> Picture:
    """``result`` (4 H, 4 W, 3), uint8 or uint16, in the mode of ``source`` and with its alpha, x4 by bicubic."""
    size = source.width * SCALE, source.height * SCALE
    info = kept(source.info, size)
    if source.wide is None:
        image = Image.fromarray(result)
        if not source.mode.endswith("A"):
            return Picture.of(image.convert(source.mode), info, None, source.notes)
        opaque = image.convert(source.mode.removesuffix("A"))
        opaque.putalpha(source.getchannel("A").resize(size, Image.Resampling.BICUBIC))
        return Picture.of(opaque, info, None, source.notes)
    wide = _joined(result, source.wide)
    return Picture.of(narrowed(wide), info, wide, source.notes)


def _joined(result: Wide, source: Wide) -> Wide:
    """Grey by Rec. 601 as Pillow's, and alpha."""
    channels = source.shape[2]
    parts = [result if channels > 2 else np.rint(result @ np.array([0.299, 0.587, 0.114]))[..., None]]
    if channels in (2, 4):
        parts.append(np.rint(_bicubic(source[..., -1:].astype(np.float32), 0, 65535)))
    return np.concatenate(parts, axis=2).astype(np.uint16)
