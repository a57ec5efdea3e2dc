"""The work itself: which images are due, and what becomes of each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from qartsr.bulk.manifest import Manifest, Row
from qartsr.bulk.place import Place, PlaceError
from qartsr.errors import QartsrError
from qartsr.files import sha256_bytes
from qartsr.images import decode_image, encode_like, is_image, resized, target_name

if TYPE_CHECKING:
    from qartsr.upscale.pipeline import OneStepSRPipeline

SCALE = 4
_AHEAD = 4
"""Images that are read ahead, and written behind."""
HOPELESS = 3
"""Images in a row that a place would not give or take: then it is no use going on."""


class Bulk(NamedTuple):
    """What is asked."""

    source: Place
    target: Place
    outscale: float = SCALE
    suffix: str = ""
    form: str | None = None
    quality: int | None = None
    strip: bool = False
    max_pixels: int | None = None

    def options(self, model: str) -> str:
        """What outputs depend on beside image and model, as JSON."""
        told = {"outscale": self.outscale, "quality": self.quality, "strip": self.strip, "model": model}
        return json.dumps(told, sort_keys=True)


class Due(NamedTuple):
    """An image to be made."""

    name: str
    output: str
    source: str


class Tally(NamedTuple):
    """How many images there were."""

    made: int
    failed: int
    skipped: int


class Engine(Protocol):
    """Who makes images."""

    def rows(self, due: Iterator[Due]) -> Iterator[Row]:
        """A row for each, in any order; ``due`` is drawn from as there is room. Raises PlaceError."""
        ...


def due(bulk: Bulk, manifest: Manifest, model: str, options: str, skipped: Callable[[], None]) -> Iterator[Due]:
    """The images whose outputs are not there, or not by this model, these options and this input."""
    manifest.there(name for name, _ in bulk.target.names())
    for name, source in bulk.source.names():
        path = PurePosixPath(name)
        if not is_image(path):  # type: ignore[arg-type]
            continue
        output = str(path.with_name(target_name(path.name, bulk.suffix, bulk.form)))
        row = manifest.find(name)
        same = row is not None and (row.source, row.model, row.options, row.output, row.error) == (
            source, model, options, output, None,
        )  # fmt: skip
        if same and manifest.exists(output):
            skipped()
        else:
            yield Due(name, output, source)


def upscale_bulk(
    bulk: Bulk, manifest: Manifest, engine: Engine, model: str, told: Callable[[Row], None], identity: str = ""
) -> Tally:
    """Make what is due; every image has one row afterwards. Raises PlaceError when a place fails for all."""
    left, counts = [0], [0, 0]

    def skip() -> None:
        left[0] += 1

    for row in engine.rows(due(bulk, manifest, model, bulk.options(identity), skip)):
        row = row._replace(model=model, options=bulk.options(identity))
        manifest.add(row)
        counts[row.error is not None] += 1
        told(row)
    return Tally(counts[0], counts[1], left[0])


def made(bulk: Bulk, each: Due, data: bytes, pipe: OneStepSRPipeline) -> tuple[Row, bytes]:
    """The output's bytes. Raises QartsrError for what is no image."""
    begun = time.monotonic()
    picture = decode_image(data, each.name, max_pixels=bulk.max_pixels)
    result = pipe(picture)
    if bulk.outscale != SCALE:
        result = resized(result, [max(1, round(side * bulk.outscale)) for side in picture.size])
    suffix = each.output[each.output.rindex(".") :]
    encoded, _ = encode_like(suffix, result, bulk.strip, bulk.quality)
    seconds = round(time.monotonic() - begun, 3)
    facts: dict[str, Any] = {"bytes": len(encoded), "sha256": sha256_bytes(encoded), "seconds": seconds}
    return Row(*each, "", "", result.width, result.height, **facts), encoded


def whole(bulk: Bulk, each: Due, pipe: OneStepSRPipeline) -> Row:
    """Read, make and write one image; its row. Raises PlaceError."""
    data = bulk.source.read(each.name)
    row, encoded = _row(bulk, each, data, pipe)
    if encoded is not None:
        bulk.target.write(each.output, encoded)
    return row


def _row(bulk: Bulk, each: Due, data: bytes, pipe: OneStepSRPipeline) -> tuple[Row, bytes | None]:
    try:
        return made(bulk, each, data, pipe)
    except QartsrError as error:
        return Row(*each, "", "", error=str(error)), None
    except Exception as error:  # a fault of ours: it must not cost the other images
        return Row(*each, "", "", error=f"{each.name}: cannot be done ({type(error).__name__}: {error})"), None


class Alone:
    """This process: reading ahead and writing behind in threads, while the model is never idle."""

    def __init__(self, bulk: Bulk, pipe: OneStepSRPipeline) -> None:
        self._bulk, self._pipe, self._lost = bulk, pipe, 0

    def rows(self, due: Iterator[Due]) -> Iterator[Row]:
        """In order. At most some images are in memory at once."""
        with ThreadPoolExecutor(_AHEAD) as readers, ThreadPoolExecutor(_AHEAD) as writers:
            read: list[tuple[Due, Future[bytes]]] = []
            written: list[Future[Row]] = []
            for each in due:
                read.append((each, readers.submit(self._bulk.source.read, each.name)))
                if len(read) >= _AHEAD:
                    self._advance(read, written, writers)
                    yield from self._over(written, _AHEAD)
            while read:
                self._advance(read, written, writers)
                yield from self._over(written, _AHEAD)
            yield from self._over(written, 0)

    def _advance(
        self, read: list[tuple[Due, Future[bytes]]], written: list[Future[Row]], writers: ThreadPoolExecutor
    ) -> None:
        each, data = read.pop(0)
        try:
            row, encoded = _row(self._bulk, each, data.result(), self._pipe)
            self._lost = 0
        except PlaceError as error:  # one may be gone since it was listed
            self._lost += 1
            if self._lost >= HOPELESS:
                raise
            row, encoded = Row(*each, "", "", error=str(error)), None
        written.append(writers.submit(self._write, each, row, encoded))

    def _write(self, each: Due, row: Row, encoded: bytes | None) -> Row:
        if encoded is not None:
            self._bulk.target.write(each.output, encoded)
        return row

    @staticmethod
    def _over(written: list[Future[Row]], most: int) -> Iterator[Row]:
        while len(written) > most:
            yield written.pop(0).result()
