"""Many machines: Ray Data hands the images to actors that hold the model, and those of one that dies to another.

The only file that knows Ray, https://docs.ray.io/en/latest/data/data.html.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from qartsr.bulk.job import HOPELESS, Bulk, Due, whole
from qartsr.bulk.manifest import Row
from qartsr.bulk.place import PlaceError
from qartsr.errors import QartsrError

_WAVE, _BLOCK = 100_000, 8
"""Images whose names are in memory at once; images that an actor is given at once, hence lost with it."""
_HANDED_ON = ("AWS_", "MLFLOW_S3_ENDPOINT_URL", "QARTSR_MAX_PIXELS")

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Nothing is told to Ray's makers, and its C++ says nothing on the terminal; its logs have it."""


class Recipe(NamedTuple):
    """How an actor gets its model."""

    package: bytes
    """the file's content: no other machine need have it"""
    options: Mapping[str, Any]
    """of ``OneStepSRPipeline.from_pretrained``"""


class Upscaler:
    """An actor: a process somewhere that loads the model once."""

    def __init__(self, bulk: Bulk, parcel: Any) -> None:
        """``parcel``: reference to a recipe and environment variables, kept out of what Ray's pages show."""
        import ray

        from qartsr.api import OneStepSRPipeline

        recipe, variables = ray.get(parcel)
        for name, value in variables.items():
            os.environ.setdefault(name, value)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.safetensors"
            file.write_bytes(recipe.package)
            self._pipe = OneStepSRPipeline.from_pretrained(file, **recipe.options)
        self._bulk = bulk

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Rows as JSON, and whether a place was at fault."""
        made = [self._one(Due(*map(str, each))) for each in zip(*(batch[name] for name in Due._fields), strict=True)]
        return {"row": [json.dumps(row) for row, _ in made], "lost": [lost for _, lost in made]}

    def _one(self, each: Due) -> tuple[Row, bool]:
        try:
            return whole(self._bulk, each, self._pipe), False
        except PlaceError as error:
            return Row(*each, "", "", error=str(error)), True


class Cluster:
    """The Ray cluster that RAY_ADDRESS names or that was started here, else one of this machine alone."""

    def __init__(self, bulk: Bulk, recipe: Recipe, actors: int | None) -> None:
        """``actors``: how many; None: one for each GPU, without any one for each processor."""
        self._bulk, self._recipe, self._actors = bulk, recipe, actors

    def rows(self, due: Iterator[Due]) -> Iterator[Row]:
        """As they are done. An actor or a machine that dies costs the time of what it was doing."""
        try:
            import ray.data
        except ImportError as error:
            raise QartsrError("is not installed", "ray", "pip install 'qartsr[ray]' -c constraints.txt") from error
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        address = os.environ.get("RAY_ADDRESS", "")
        try:
            _knock(address)
            ray.init(include_dashboard=None, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            what = f"the Ray cluster does not answer ({first})"
            raise QartsrError(what, address or "Ray", "check RAY_ADDRESS and RAY_AUTH_TOKEN") from error
        with redirect_stdout(sys.stderr):  # Ray tells there of what dies, and standard output is for --json
            try:
                logging.getLogger("ray.data").setLevel(logging.ERROR)
                ray.data.DataContext.get_current().enable_progress_bars = False
                yield from self._waves(ray, due)
            finally:
                ray.shutdown()  # it tells what it still has to say

    def _waves(self, ray: Any, due: Iterator[Due]) -> Iterator[Row]:
        variables = {name: value for name, value in os.environ.items() if name.startswith(_HANDED_ON)}
        gpus = 0 if self._recipe.options["device"] == "cpu" else int(ray.cluster_resources().get("GPU", 0))
        threads = int(self._recipe.options["threads"]) or 1
        options = {**self._recipe.options, "threads": threads}
        parcel = ray.put((self._recipe._replace(options=options), variables))
        actors = self._actors or gpus or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors)
        needs = {"num_gpus": 1} if gpus else {"num_cpus": threads}
        lost = 0
        while wave := [each._asdict() for each in islice(due, _WAVE)]:
            given = ray.data.from_items(wave, override_num_blocks=-(-len(wave) // _BLOCK))
            told = given.map_batches(
                Upscaler, fn_constructor_args=(self._bulk, parcel), batch_size=_BLOCK, compute=pool, **needs
            )
            for each in told.iter_rows():
                row = Row(*json.loads(each["row"]))
                lost = lost + 1 if each["lost"] else 0
                if lost >= HOPELESS * actors:
                    raise PlaceError("fails for all", row.name, row.error or "see its log")
                yield row


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself tries for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
