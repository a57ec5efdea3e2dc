"""Drawn test pictures: windows of a facade, slanting roofs, letters. Repeating edges, as Urban100 is full of them.

They come from arithmetic and Pillow's own font alone, four times too large and shrunk by Lanczos, so edges are smooth.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from qartsr.data.pairs import image_tensor

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
