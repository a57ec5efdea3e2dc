"""Where to look: every test image whole, and its most detailed window, of all subjects."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from qartsr.evaluate.report.inputs import Contents, Subject
from qartsr.evaluate.scenes import Scene
from qartsr.images import read_image

SIDE = 96
"""Crop in HR pixels; a smaller image is shown whole."""
MOST = 120
"""Most scenes on the page, spread evenly over the test set: all of DIV2K's hundred."""
WIDEST, FULL = 1024, 24
"""Longest side of the pictures under the line, and up to how many scenes: with more, all are smaller."""
_THUMBNAIL = 144

Array = NDArray[np.float64]
Item = TypeVar("Item")
Box = tuple[int, int, int, int]
"""left, upper, right, lower in HR pixels, multiples of 4"""


class Cut(NamedTuple):
    """One subject's crop; ``error`` is empty where the truth or the source is shown."""

    title: str
    key: str
    image: Image.Image
    error: Image.Image | None
    caption: str
    whole: Image.Image
    """the picture it was cut from, shrunk for the page"""


class SceneCuts(NamedTuple):
    """A scene, where it was cut, and the crops from LR to HR."""

    name: str
    size: tuple[int, int]
    box: Box
    thumbnail: Image.Image
    cuts: tuple[Cut, ...]


def cut_scenes(contents: Contents) -> list[SceneCuts]:
    """Crops of at most :data:`MOST` scenes."""
    chosen = spread(contents.scenes.items, MOST)
    widest = widest_of(len(chosen))
    return [_cut_scene(item, contents.subjects, widest) for item in chosen]


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, evenly."""
    return [items[index] for index in sorted({round(i) for i in np.linspace(0, len(items) - 1, min(most, len(items)))})]


def widest_of(scenes: int) -> int:
    """Longest side of whole pictures on a page of so many scenes, in pixels."""
    return round(WIDEST * min(1.0, FULL / scenes) ** 0.5)


def textured(image: Image.Image, side: int = SIDE) -> Box:
    """The window with the most detail: mean luma gradient times standard deviation, on a grid of 8 pixels.

    The gradient alone finds fur and grass, the deviation alone a bare edge; eyes and lettering have both.
    """
    luma = np.asarray(image.convert("L"), dtype=np.float64)
    height, width = (min(side, length) for length in luma.shape)
    tops, lefts = (np.arange(0, n - m + 1, 8) for n, m in zip(luma.shape, (height, width), strict=True))

    def mean(values: Array) -> Array:
        sums = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        rows, columns = np.ix_(tops, lefts)
        below = sums[rows + height, columns + width] - sums[rows + height, columns]
        above = sums[rows, columns + width] - sums[rows, columns]
        means: Array = (below - above) / (height * width)
        return means

    gradient = mean(np.hypot(*np.gradient(luma)))
    deviation = np.sqrt(np.maximum(mean(luma**2) - mean(luma) ** 2, 0))
    row, column = np.unravel_index(np.argmax((gradient * deviation).round(6)), gradient.shape)
    left, top = int(lefts[column]), int(tops[row])
    return left, top, left + width, top + height


def data_uri(image: Image.Image) -> str:
    """PNG in a ``data:`` address."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _whole(image: Image.Image, widest: int) -> Image.Image:
    """Small enough for the page."""
    small = image.convert("RGB")
    small.thumbnail((widest, widest), Image.Resampling.LANCZOS)
    return small


def lossy_uri(image: Image.Image) -> str:
    """WebP of quality 90 in a ``data:`` address: a test set of whole pictures would be too large otherwise."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=90, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _cut_scene(scene: Scene, subjects: Sequence[Subject], widest: int) -> SceneCuts:
    hr, lr = scene.hr(), scene.lr()
    box = textured(hr)
    source = lr.crop((box[0] // 4, box[1] // 4, box[2] // 4, box[3] // 4))
    cuts = [
        Cut(
            "LR", "lr", source, None, f"{source.width} by {source.height} pixels", _whole(lr.resize(hr.size, 0), widest)
        )
    ]
    for subject in subjects:
        file, caption = f"{scene.name}.png", f"{subject.per_image[scene.name]['psnr']:.2f} dB"
        image, error = (read_image(subject.folder / kind / file) for kind in ("images", "errors"))
        cuts.append(Cut(subject.title, subject.key, image.crop(box), error.crop(box), caption, _whole(image, widest)))
    cuts.append(Cut("HR", "hr", hr.crop(box), None, "truth", _whole(hr, widest)))
    return SceneCuts(scene.name, hr.size, box, _thumbnail(hr, box), tuple(cuts))


def _thumbnail(image: Image.Image, box: Box) -> Image.Image:
    """The whole picture, small, with a frame where it was cut."""
    small = image.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    factor = small.width / image.width
    frame = [round(edge * factor) for edge in box]
    pen = ImageDraw.Draw(small)
    pen.rectangle([frame[0] - 1, frame[1] - 1, frame[2] + 1, frame[3] + 1], outline=(0, 0, 0))
    pen.rectangle(frame, outline=(255, 255, 255), width=2)
    return small
