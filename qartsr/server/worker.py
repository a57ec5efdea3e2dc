"""The one thread that has the model: images come one after another, for tiles of two would need the memory of two."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from qartsr.errors import QartsrError
from qartsr.images import decode_image, encode_png
from qartsr.server.watch import LOG, Watch

if TYPE_CHECKING:
    from qartsr.images import Picture
    from qartsr.upscale.pipeline import OneStepSRPipeline

Load = Callable[[], "OneStepSRPipeline"]


class Worker:
    """Loads the model, then does what it is asked in the order of asking."""

    def __init__(self, load: Load, source: str, watch: Watch) -> None:
        self._pool = ThreadPoolExecutor(1, "qartsr-worker")
        self._watch, self._source = watch, source
        self._pipe: OneStepSRPipeline | None = None
        self.loading: Future[None] = self._pool.submit(self._load, load)

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self._pipe is not None

    def _load(self, load: Load) -> None:
        begun = time.monotonic()
        pipe = load()
        facts = {"source": self._source, "sha256": pipe.digest(), "engine": pipe.engine}
        self._watch.model(**facts)
        self._pipe = pipe
        self._watch.ready.set(1)
        LOG.info("the model is loaded", extra={"facts": {**facts, "seconds": round(time.monotonic() - begun, 3)}})

    def submit(self, data: list[bytes], most: int) -> Future[list[bytes]]:
        """PNG files for image files, which have at most ``most`` pixels together. The future raises QartsrError."""
        arrived = time.monotonic()

        def work() -> list[bytes]:
            self._watch.queue_seconds.observe(time.monotonic() - arrived)
            left, made = most, list[bytes]()
            for row, each in enumerate(data):
                where = "the image" if len(data) == 1 else f"row {row}"
                pixels, png = self._upscaled(each, where, left)
                left -= pixels
                made.append(png)
            return made

        return self._pool.submit(work)

    def _upscaled(self, data: bytes, where: str, left: int) -> tuple[int, bytes]:
        begun, outcome = time.monotonic(), "failed"
        try:
            image = self._image(data, where, left)
            assert self._pipe is not None  # submitted after loading
            result = encode_png(self._pipe(image))
            outcome = "done"
        except QartsrError:
            outcome = "refused"
            raise
        finally:
            self._watch.images.labels(outcome).inc()
        self._watch.upscale_seconds.observe(time.monotonic() - begun)
        self._watch.pixels.inc(image.width * image.height)
        return image.width * image.height, result

    @staticmethod
    def _image(data: bytes, where: str, left: int) -> Picture:
        image = decode_image(data, where, max_pixels=left)
        for note in image.notes:
            LOG.warning("%s: %s", where, note)
        return image

    def close(self) -> None:
        """Finish what is begun; what waits is dropped."""
        self._watch.ready.set(0)
        self._pool.shutdown(wait=False, cancel_futures=True)
