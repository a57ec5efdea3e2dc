"""What ``mlflow.pyfunc.load_model`` and ``mlflow models serve`` call for a published version (docs/serving.md).

In and out goes a data frame with the column ``image``: base64 of an image file in, of a PNG file out.
Needs the extra [serve]: MLflow and pandas.
"""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import yaml

from qartsr.api import OneStepSRPipeline
from qartsr.errors import QartsrError, printable
from qartsr.files import sha256_file
from qartsr.images import Picture, decode_image, encode_png, from_base64
from qartsr.images.read import ALLOWANCE
from qartsr.release.flavour import COLUMN, CONFIG, MLMODEL
from qartsr.release.registry import WEIGHTS

if TYPE_CHECKING:
    from pandas import DataFrame

_LOG = logging.getLogger("qartsr")
MAX_PIXELS, MAX_WAITING = 1 << 22, 64
"""Of a request; 4 million pixels in are 67 million out."""
_WAITING = "QARTSR_MAX_WAITING"
_META = "registered_model_meta"
"""Where MLflow writes which version it has downloaded."""


def _load_pyfunc(path: str, model_config: Mapping[str, Any] = CONFIG) -> ImageModel:
    """The model in MLflow's download ``path``.

    Its weights must have the SHA-256 that the registry has for that version. A folder that MLflow did not get from a
    registry is compared with its own ``MLmodel``. Raises QartsrError when the hashes differ or there is none.
    """
    file = Path(path) / WEIGHTS
    expected, actual = _registered(Path(path)), sha256_file(file)
    if actual != expected:
        what = f"its bytes have SHA-256 {actual[:12]}…, registered is {expected[:12]}…"
        raise QartsrError(what, str(file), "publish the package again")
    return ImageModel(OneStepSRPipeline.from_pretrained(file, **model_config))


class _BusyError(QartsrError):
    """Too many wait."""


class ImageModel:
    """``predict`` of the flavour. One image at a time: tiles of several would need the memory of several.

    A request may hold MAX_PIXELS pixels (all its images together), unless QARTSR_MAX_PIXELS says otherwise, for nobody
    else is served meanwhile; and MAX_WAITING requests may wait, unless QARTSR_MAX_WAITING says otherwise.
    """

    def __init__(self, pipe: OneStepSRPipeline) -> None:
        self._pipe, self._lock, self._inside = pipe, Lock(), 0
        self._counting = Lock()

    def predict(self, model_input: DataFrame) -> DataFrame:
        """Upscale every row's image; rows keep their index.

        Raises MlflowException with one sentence: a server answers status 400 for what is no image or too large, 429
        where too many wait.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import REQUEST_LIMIT_EXCEEDED

        try:
            with self._turn():
                results = self._results(list(model_input[COLUMN]))
        except _BusyError as error:
            raise MlflowException(str(error), error_code=REQUEST_LIMIT_EXCEEDED) from error
        except QartsrError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return model_input[[COLUMN]].assign(**{COLUMN: results})

    def _results(self, texts: list[str]) -> list[str]:
        left, results = setting(ALLOWANCE, MAX_PIXELS), list[str]()
        for row, text in enumerate(texts):
            image = self._image(text, f"row {row}", left)
            left -= image.width * image.height
            with self._lock:
                result = self._pipe(image)
            results.append(base64.b64encode(encode_png(result)).decode())
        return results

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A place among those that wait. Raises _BusyError when there is none."""
        with self._counting:
            if self._inside > setting(_WAITING, MAX_WAITING):
                raise _BusyError(f"{self._inside} requests wait already", "the server", "try again later")
            self._inside += 1
        try:
            yield
        finally:
            with self._counting:
                self._inside -= 1

    def _image(self, text: str, where: str, left: int) -> Picture:
        image = decode_image(from_base64(text, where), where, max_pixels=left)
        for note in image.notes:
            _LOG.warning("%s", printable(f"{where}: {note}"))
        return image


def setting(variable: str, default: int) -> int:
    """A number from the environment. Raises QartsrError when it is none."""
    told = os.environ.get(variable, "").strip()
    if told and not told.isdecimal():
        raise QartsrError(f"{told[:40]!r} is no number", variable, f"set it to a number such as {default}")
    return int(told) if told else default


def _registered(folder: Path) -> str:
    """The SHA-256 to expect, from the registry where MLflow says which version this is."""
    if not (folder / _META).is_file():
        return _text(
            yaml.safe_load((folder / MLMODEL).read_text(encoding="utf-8")).get("metadata") or {}, str(folder / MLMODEL)
        )
    from mlflow import MlflowClient

    meta = yaml.safe_load((folder / _META).read_text(encoding="utf-8"))
    name, number = meta["model_name"], str(meta["model_version"])
    return _text(MlflowClient().get_model_version(name, number).tags, f"{name} version {number}")


def _text(facts: Mapping[str, Any], where: str) -> str:
    if "sha256" not in facts:
        raise QartsrError("has no 'sha256'", where, "publish the package again")
    return str(facts["sha256"])
