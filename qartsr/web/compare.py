"""What the page does, without the page: one picture through several models, and many through one.

Pictures come in through the project's one reader and go through :class:`qartsr.api.OneStepSRPipeline`, so the page's
pixels are those of the command line. Nothing here knows Gradio.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from PIL import Image

from qartsr.api import OneStepSRPipeline
from qartsr.clips.names import is_clip
from qartsr.data.pairs import image_tensor
from qartsr.errors import QartsrError
from qartsr.evaluate.pictures import error_map, fitted
from qartsr.images import SCALE, Picture, check_target, read_image, target_name, upsample, write_image
from qartsr.metrics.luma import psnr_y
from qartsr.release.leaderboard import leaderboard
from qartsr.upscale.model_source import local

BICUBIC, ORIGINAL, FP = "bicubic", "original", "floating point"
Load = Callable[[str], OneStepSRPipeline]
Report = Callable[[float, str], None]
"""The share that is done, 0 to 1, and what is being done."""


class Limits(NamedTuple):
    """What one visitor may ask for."""

    pixels: int = 1 << 20
    """of a picture; the result has 16 times as many"""
    models: int = 4
    """side by side"""
    files: int = 50
    """of a batch"""
    frames: int = 500
    """of a clip"""
    waiting: int = 8
    """visitors that may wait; one is served at a time"""


class Choice(NamedTuple):
    """A model that may be chosen."""

    label: str
    source: str


def choices(sources: Sequence[str]) -> tuple[tuple[Choice, ...], str]:
    """The given models, or else what is in ``build/packages`` and the registry; and why the registry has none."""
    if sources:
        return tuple(Choice(source, source) for source in sources), ""
    files = sorted(Path("build/packages").glob("*/model.safetensors"))
    packages = [Choice(f"{file.parent.name} (build/packages)", str(file.parent)) for file in files]
    try:
        registered, note = [Choice(str(each), each.uri) for each in leaderboard()], ""
    except QartsrError as error:
        registered, note = [], f"No registered versions: {error}"
    return (*packages, *registered), note


class Models:
    """Loaded models, the few that were used last; one picture at a time."""

    def __init__(self, load: Load, kept: int = 3) -> None:
        self._load, self._kept, self._pipes = load, kept, dict[str, OneStepSRPipeline]()
        self.lock = Lock()

    def get(self, source: str) -> OneStepSRPipeline:
        """The model, loaded if need be. Raises QartsrError."""
        pipe = self._pipes.pop(source, None) or self._load(source)
        self._pipes[source] = pipe
        while len(self._pipes) > self._kept:
            del self._pipes[next(iter(self._pipes))]
        return pipe


class Row(NamedTuple):
    """What one model did."""

    model: str
    bytes: int
    """of its files"""
    seconds: float
    """of this picture, the model being loaded; the first picture of a size includes preparing for that size"""
    psnr_to_fp: float | None
    """dB on luma, to the floating-point model's output"""
    psnr: float | None
    """dB on luma, to the original"""


class Comparison(NamedTuple):
    """One picture, enlarged in several ways."""

    layers: dict[str, Path]
    """what can be looked at, all of one size: PNG files"""
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def outputs(self) -> list[Path]:
        """The pictures that models made."""
        return [self.layers[row.model] for row in self.rows]


def compare(
    models: Models,
    picture: Path,
    chosen: Sequence[Choice],
    folder: Path,
    *,
    fp: str | None = None,
    original: Path | None = None,
    limits: Limits = Limits(),  # noqa: B008  # immutable
    report: Report = lambda share, what: None,
) -> Iterator[Comparison]:
    """Enlarge ``picture`` with each model; the comparison so far after each of them.

    Parameters
    ----------
    folder: an empty one, for the layers.
    fp: the floating-point model to compare with.
    original: the picture in its full size, 4 times as wide and high, to measure errors against.

    Raises QartsrError for a picture that cannot be read or is too large, no or too many models, and an original of
    another size.
    """
    if not 1 <= len(chosen) <= limits.models:
        raise QartsrError(f"{len(chosen)} are chosen", "models", f"choose 1 to {limits.models}")
    image = _admitted(picture, limits)
    truth = None if original is None else _original(original, image, limits)
    layers = {BICUBIC: _kept(folder, BICUBIC, upsample(image.convert("RGB")))}
    if truth is not None:
        layers[ORIGINAL] = _kept(folder, ORIGINAL, truth)
    rows = list[Row]()
    subjects = [*([Choice(FP, fp)] if fp else []), *chosen]
    reference: Image.Image | None = None
    with models.lock:
        for number, (label, source) in enumerate(subjects):
            pipe = models.get(source)
            begun = time.monotonic()
            result = pipe(image, lambda done, total: report((number + done / total) / len(subjects), label))  # noqa: B023
            seconds = time.monotonic() - begun
            layers[label] = _kept(folder, label, result)
            flat = result.convert("RGB")
            if source == fp:
                reference = flat
            for name, other in ((f"error of {label}", truth), (f"{label} against {FP}", reference)):
                if other is not None and not (other is reference and source == fp):
                    layers[name] = _kept(folder, name, error_map(flat, other))
            to_fp = None if reference is None or source == fp else _psnr(flat, reference)
            rows.append(Row(label, _bytes(source), seconds, to_fp, None if truth is None else _psnr(flat, truth)))
            yield Comparison(dict(layers), tuple(rows), image.notes)


def windows(
    comparison: Comparison, names: Sequence[str], across: float, down: float, zoom: float, side: int = 320
) -> list[tuple[Image.Image, str]]:
    """The same window of several layers, ``side`` pixels wide, each with its name.

    ``across`` and ``down``: its middle, 0 to 1; ``zoom``: how many of the window are as wide as the shorter side.
    """
    cut = []
    for name in names:
        with Image.open(comparison.layers[name]) as layer:
            size = max(8, round(min(layer.size) / zoom))
            size = min(size, *layer.size)
            left, top = round(across * (layer.width - size)), round(down * (layer.height - size))
            cut.append((fitted(layer.crop((left, top, left + size, top + size)).convert("RGB"), side), name))
    return cut


class Batch(NamedTuple):
    """What became of several files."""

    archive: Path | None
    """ZIP of what was made; None: nothing was"""
    lines: tuple[tuple[str, str], ...]
    """name of each file, and its size or what went wrong"""


def batch(
    models: Models,
    files: Sequence[Path],
    source: str,
    folder: Path,
    *,
    limits: Limits = Limits(),  # noqa: B008  # immutable
    report: Report = lambda share, what: None,
) -> Batch:
    """Enlarge pictures and clips into one archive; one that fails ends nothing but itself. ``folder`` is empty.

    Raises QartsrError for no or too many files, and for a model that cannot be loaded.
    """
    if not 1 <= len(files) <= limits.files:
        raise QartsrError(f"{len(files)} are given", "files", f"give 1 to {limits.files}")
    made, lines = list[Path](), list[tuple[str, str]]()
    with models.lock:
        pipe = models.get(source)
        for number, file in enumerate(files):
            name = file.name
            report(number / len(files), name)
            try:
                target, size = _enlarged(pipe, file, folder / str(number), limits, lambda share: report(share, name))  # noqa: B023
            except QartsrError as error:
                lines.append((name, str(error).replace(str(file), name)))
                continue
            made.append(target)
            lines.append((name, f"{size[0]} x {size[1]}"))
    return Batch(_archive(folder / "enlarged.zip", made) if made else None, tuple(lines))


def _enlarged(
    pipe: OneStepSRPipeline, file: Path, folder: Path, limits: Limits, told: Callable[[float], None]
) -> tuple[Path, tuple[int, int]]:
    folder.mkdir()
    if is_clip(file):
        from qartsr.clips.source import survey

        clip = survey(file)
        if clip.count > limits.frames or clip.size[0] * clip.size[1] > limits.pixels:
            what = f"has {clip.count} frames of {clip.size[0]}x{clip.size[1]}"
            do = f"send at most {limits.frames} frames of {limits.pixels:,} pixels, or use `qartsr upscale`"
            raise QartsrError(what, str(file), do)
        target = folder / f"{file.stem}.mp4"
        done = pipe.upscale_clip(file, target, report=lambda progress: told(progress.done / max(progress.total, 1)))
        return target, done.size
    picture, target = _admitted(file, limits), folder / target_name(file.name)
    check_target(target, picture, SCALE)
    result = pipe(picture, lambda done, total: told(done / total))
    write_image(target, result)
    return target, result.size


def _archive(target: Path, files: Sequence[Path]) -> Path:
    """Two of one name get numbers."""
    taken = set[str]()
    with zipfile.ZipFile(target, "w") as archive:  # pictures and clips are compressed already
        for number, file in enumerate(files):
            name = file.name if file.name not in taken else f"{file.stem}-{number}{file.suffix}"
            taken.add(name)
            archive.write(file, name)
    return target


def _admitted(file: Path, limits: Limits) -> Picture:
    """Raises QartsrError; a visitor cannot allow more pixels, as those of a command can."""
    try:
        return read_image(file, max_pixels=limits.pixels)
    except QartsrError as error:
        if "--max-pixels" not in error.do:
            raise
        raise QartsrError(
            f"has more than {limits.pixels:,} pixels", str(file), "send a smaller one, or a part"
        ) from error


def _original(file: Path, picture: Picture, limits: Limits) -> Image.Image:
    truth = _admitted(file, limits._replace(pixels=SCALE * SCALE * limits.pixels)).convert("RGB")
    if truth.size != (SCALE * picture.width, SCALE * picture.height):
        size = f"{SCALE * picture.width}x{SCALE * picture.height}"
        raise QartsrError(f"has {truth.width}x{truth.height} pixels", "the original", f"give one of {size}")
    return truth


def _kept(folder: Path, name: str, image: Image.Image) -> Path:
    """In a file of its own, whatever other names become the same one."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")[:80]
    file = folder / f"{len(list(folder.iterdir())):02}-{plain}.png"
    write_image(file, image)
    return file


def _psnr(image: Image.Image, reference: Image.Image) -> float:
    return psnr_y(image_tensor(image) / 255, image_tensor(reference) / 255)


def _bytes(source: str) -> int:
    """Of the model file, or of the tensors of a model folder."""
    path = local(source)
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    return sum(file.stat().st_size for file in files)
