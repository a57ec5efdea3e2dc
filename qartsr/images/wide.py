"""16 bits per channel out of Pillow's decoders, which know them for grey only.

Of a colour they hand out one byte in two, which of them being a matter of the byte order they are told. Told both, one
after the other, they hand out both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL.ImageFile import ImageFile

from qartsr.images.picture import Wide, keyed

Open = Callable[[], ImageFile]
"""Opens the file anew, not loaded."""
_OTHER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
_SAME = {"RGBa": "RGBA"}


def depth(opened: ImageFile) -> int:
    """Bits per channel, 8 or 16, of a file that is not loaded yet."""
    raws = [_raw(tile.args) for tile in opened.tile]
    return 16 if any(";16" in raw and not raw.startswith("BGR") for raw in raws) else 8


def read_wide(opened: ImageFile, again: Open) -> Wide | None:
    """The pixels of a 16-bit file, uint16 (H, W, C); None for what is not grey, RGB, or either with alpha.

    ``opened`` is used up where it is grey. Decoders raise what they raise.
    """
    if opened.mode.startswith("I;16"):
        opened.load()
        return keyed(np.asarray(opened).astype(np.uint16)[..., None], opened.info.get("transparency"))
    raw = _raw(opened.tile[0].args)
    if raw == "LA;16B":  # its four bytes are those of a pixel of RGBA
        four = np.asarray(_told(again(), "RGBA")).astype(np.uint16)
        return _both(four[..., 0::2], four[..., 1::2])
    kind, _, order = raw.partition(";16")
    if kind not in ("RGB", "RGBX", "RGBA", "RGBa") or order not in _OTHER:
        return None
    kind = _SAME.get(kind, kind)
    high, low = (np.asarray(_told(again(), f"{kind};16{end}")).astype(np.uint16) for end in (order, _OTHER[order]))
    wide = _both(high, low)
    return _parted(wide) if raw.startswith("RGBa") else keyed(wide, opened.info.get("transparency"))


def _both(high: Wide, low: Wide) -> Wide:
    return ((high << 8) | low).astype(np.uint16)


def _told(image: ImageFile, raw: str) -> ImageFile:
    """Loaded, its bytes taken for ``raw``."""
    image.info.pop("transparency", None)
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in image.tile
    ]
    image.load()
    return image


def _parted(wide: Wide) -> Wide:
    """Colours that were multiplied by alpha, divided by it."""
    alpha = np.maximum(wide[..., 3:].astype(np.float64), 1) / 65535
    colour = np.minimum(np.rint(wide[..., :3] / alpha), 65535).astype(np.uint16)
    return np.concatenate([colour, wide[..., 3:]], axis=2)


def _raw(codec: Any) -> str:
    return str(codec[0] if isinstance(codec, tuple) else codec)
